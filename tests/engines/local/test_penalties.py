"""Biases and penalties change only the logits of their tokens in their own sequences."""

from collections import Counter

import torch

from steering_server.engines.local.penalties import TokenHistory, adjust
from steering_server.generation.requests import SamplingParams

END = frozenset({9})
LOGITS = torch.tensor([[2.0, -2.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 5.0]])


def params(**settings) -> SamplingParams:
    return SamplingParams(max_tokens=5, **settings)


def changed(p: SamplingParams, prompt: tuple[int, ...] = (), generated: tuple[int, ...] = ()) -> dict[int, float]:
    """The logits that differ afterwards."""
    after = adjust(LOGITS, [p], [TokenHistory(frozenset(prompt), Counter(generated))], END)
    return {token: after[0, token].item() for token in range(10) if after[0, token] != LOGITS[0, token]}


def test_a_repetition_penalty_makes_tokens_of_prompt_and_text_less_likely():
    assert changed(params(repetition_penalty=2.0), prompt=(0,), generated=(1, 1)) == {0: 1.0, 1: -4.0}


def test_a_presence_penalty_is_subtracted_once_from_tokens_of_the_text():
    assert changed(params(presence_penalty=0.5), prompt=(0,), generated=(2, 2, 3)) == {2: 0.5, 3: -0.5}


def test_a_frequency_penalty_is_subtracted_once_per_occurrence():
    assert changed(params(frequency_penalty=0.5), generated=(2, 2, 3)) == {2: 0.0, 3: -0.5}


def test_a_bias_is_added_to_its_token():
    assert changed(params(logit_bias=((4, 1.5), (5, -100.0)))) == {4: 1.5, 5: -100.0}


def test_end_tokens_are_excluded_before_min_tokens():
    assert changed(params(min_tokens=2), generated=(1,)) == {9: float("-inf")}
    assert changed(params(min_tokens=2), generated=(1, 1)) == {}


def test_sequences_without_penalties_are_unchanged_beside_others():
    rows = LOGITS.repeat(3, 1)
    settings = [params(), params(presence_penalty=1.0, logit_bias=((0, 2.0),)), params()]
    after = adjust(rows, settings, [TokenHistory(frozenset({1}), Counter((0, 2)))] * 3, END)
    assert torch.equal(after[0], LOGITS[0])
    assert torch.equal(after[2], LOGITS[0])
    assert after[1].tolist() == [3.0, -2.0, 0.0, *LOGITS[0, 3:].tolist()]


def test_without_any_penalty_the_same_tensor_is_returned():
    assert adjust(LOGITS, [params()], [TokenHistory(frozenset())], END) is LOGITS
