"""The next token of a sequence depends only on its logits, parameters and random number."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from steering_server.engines.local.sampling import logprobs_of, sample
from steering_server.generation.requests import SamplingParams

VOCABULARY = 50


def logits(rows: int, seed: int = 0, vocabulary: int = VOCABULARY) -> torch.Tensor:
    return torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed)) * 3


def params(
    temperature: float = 1.0, top_p: float = 1.0, top_k: int | None = None, min_p: float = 0.0
) -> SamplingParams:
    return SamplingParams(max_tokens=1, temperature=temperature, top_p=top_p, top_k=top_k, min_p=min_p)


def drawn(row: torch.Tensor, p: SamplingParams, draws: int = 200) -> set[int]:
    """All tokens drawn with evenly spread random numbers."""
    return set(sample(row.expand(draws, -1), [p] * draws, [i / draws for i in range(draws)]))


def test_temperature_zero_selects_the_likeliest_token():
    row = logits(1)
    assert sample(row, [params(temperature=0)], [0.99]) == [int(row.argmax())]


def test_the_lower_of_equally_likely_ids_is_selected():
    assert sample(torch.tensor([[1.0, 5.0, 5.0, 0.0]]), [params(temperature=0)], [0.5]) == [1]


def test_draws_follow_the_softmax_distribution():
    row, draws = logits(1, vocabulary=6), 4000
    uniforms = [(i + 0.5) / draws for i in range(draws)]
    tokens = sample(row.expand(draws, -1), [params(temperature=2.0)] * draws, uniforms)
    frequencies = torch.bincount(torch.tensor(tokens), minlength=6) / draws
    torch.testing.assert_close(frequencies, (row[0] / 2.0).softmax(-1), atol=1e-3, rtol=0)


def test_a_nucleus_holds_the_fewest_likeliest_tokens_that_reach_top_p():
    row = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    drawn = {sample(row, [params(top_p=0.7)], [i / 100])[0] for i in range(100)}
    assert drawn == {0, 1}


def test_a_nucleus_wider_than_the_candidates_looked_at_first_is_still_exact():
    row, draws = torch.zeros(1, 3000), 600
    tokens = sample(row.expand(draws, -1), [params(top_p=0.9)] * draws, [i / draws for i in range(draws)])
    assert len(set(tokens)) == draws


def test_top_k_leaves_the_k_likeliest():
    row = logits(1)
    assert drawn(row, params(temperature=5.0, top_k=3)) == set(row[0].topk(3).indices.tolist())


def test_min_p_leaves_tokens_above_a_share_of_the_likeliest():
    row = torch.tensor([[0.5, 0.26, 0.14, 0.1]]).log()
    assert drawn(row, params(min_p=0.25)) == {0, 1, 2}


def test_top_p_applies_to_the_tokens_that_top_k_leaves():
    row = torch.tensor([[0.4, 0.3, 0.2, 0.1]]).log()
    assert drawn(row, params(top_p=0.6)) == {0, 1}
    assert drawn(row, params(top_p=0.55, top_k=2)) == {0}


@pytest.mark.parametrize("limits", [{"top_k": 1500}, {"min_p": 0.5}, {"top_p": 0.8, "min_p": 0.5}])
def test_limits_wider_than_the_candidates_looked_at_first_are_still_exact(limits: dict):
    row = torch.zeros(1, 3000)
    expected = limits.get("top_k", 3000 * limits.get("top_p", 1))
    assert abs(len(drawn(row, params(**limits), draws=6000)) - expected) <= 1


def test_the_smallest_top_p_still_leaves_the_likeliest_token():
    row = logits(1)
    assert sample(row, [params(top_p=1e-9)], [0.999]) == [int(row.argmax())]


@pytest.mark.parametrize("temperature", [1e-6, 1e-3])
def test_a_tiny_temperature_is_greedy_and_finite(temperature: float):
    row = logits(1)
    assert sample(row, [params(temperature=temperature)], [0.7]) == [int(row.argmax())]


row_settings = st.tuples(
    st.integers(0, 1000),
    st.builds(
        params,
        temperature=st.sampled_from([0.0, 0.3, 1.0, 1.7]),
        top_p=st.sampled_from([0.2, 0.9, 1.0]),
        top_k=st.sampled_from([None, 1, 5, 40]),
        min_p=st.sampled_from([0.0, 0.1]),
    ),
    st.floats(0, 0.999),
)


@settings(max_examples=100)
@given(st.lists(row_settings, min_size=2, max_size=5))
def test_a_sequence_gets_the_same_token_alone_and_in_any_batch(rows: list[tuple[int, SamplingParams, float]]):
    together = sample(
        torch.cat([logits(1, seed) for seed, _, _ in rows]), [p for _, p, _ in rows], [u for *_, u in rows]
    )
    assert together == [sample(logits(1, seed), [p], [u])[0] for seed, p, u in rows]


def test_logprobs_are_those_of_the_unscaled_distribution_likeliest_first():
    row = logits(1)
    (scored,) = logprobs_of(row, [3], [4])
    expected = row[0].log_softmax(-1)
    assert math.isclose(scored.logprob, expected[3].item(), abs_tol=1e-6)
    assert [token for token, _ in scored.top] == expected.topk(4).indices.tolist()
    assert [value for _, value in scored.top] == pytest.approx(expected.topk(4).values.tolist())


def test_each_row_gets_the_requested_number_of_alternatives():
    assert [len(scored.top) for scored in logprobs_of(logits(3), [0, 1, 2], [0, 5, 2])] == [0, 5, 2]
