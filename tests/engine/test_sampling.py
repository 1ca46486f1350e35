"""The next token of each row is its own affair: its logits, its parameters, its random number."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from steering_server.engine.requests import SamplingParams
from steering_server.engine.sampling import logprobs_of, sample

VOCABULARY = 50


def logits(rows: int, seed: int = 0, vocabulary: int = VOCABULARY) -> torch.Tensor:
    return torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed)) * 3


def params(temperature: float = 1.0, top_p: float = 1.0) -> SamplingParams:
    return SamplingParams(max_tokens=1, temperature=temperature, top_p=top_p)


def test_temperature_zero_takes_the_likeliest_token():
    row = logits(1)
    assert sample(row, [params(temperature=0)], [0.99]) == [int(row.argmax())]


def test_equally_likely_tokens_are_settled_by_the_lower_id():
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


def test_the_smallest_top_p_still_leaves_the_likeliest_token():
    row = logits(1)
    assert sample(row, [params(top_p=1e-9)], [0.999]) == [int(row.argmax())]


@pytest.mark.parametrize("temperature", [1e-6, 1e-3])
def test_a_tiny_temperature_is_greedy_and_finite(temperature: float):
    row = logits(1)
    assert sample(row, [params(temperature=temperature)], [0.7]) == [int(row.argmax())]


row_settings = st.tuples(
    st.integers(0, 1000), st.sampled_from([0.0, 0.3, 1.0, 1.7]), st.sampled_from([0.2, 0.9, 1.0]), st.floats(0, 0.999)
)


@settings(max_examples=50)
@given(st.lists(row_settings, min_size=2, max_size=5))
def test_a_row_gets_the_same_token_alone_and_in_any_batch(rows: list[tuple[int, float, float, float]]):
    together = sample(
        torch.cat([logits(1, seed) for seed, *_ in rows]), [params(t, p) for _, t, p, _ in rows], [u for *_, u in rows]
    )
    alone = [sample(logits(1, seed), [params(t, p)], [u])[0] for seed, t, p, u in rows]
    assert together == alone


def test_logprobs_are_those_of_the_unscaled_distribution_likeliest_first():
    row = logits(1)
    (scored,) = logprobs_of(row, [3], [4])
    expected = row[0].log_softmax(-1)
    assert math.isclose(scored.logprob, expected[3].item(), abs_tol=1e-6)
    assert [token for token, _ in scored.top] == expected.topk(4).indices.tolist()
    assert [value for _, value in scored.top] == pytest.approx(expected.topk(4).values.tolist())


def test_each_row_gets_as_many_alternatives_as_it_asked_for():
    assert [len(scored.top) for scored in logprobs_of(logits(3), [0, 1, 2], [0, 5, 2])] == [0, 5, 2]
