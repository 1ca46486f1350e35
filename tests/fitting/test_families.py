"""Fits on every architecture family."""

from dataclasses import replace

import pytest

from steering_profiles.compatibility import check_compatibility
from steering_profiles.evaluation.decoding import GreedyDecoder
from steering_profiles.fitting import FitSettings, StepwiseSettings, fit
from steering_profiles.fitting.circuit import rank_by_patching
from steering_profiles.fitting.components import Component
from steering_profiles.models import LoadedModel
from steering_profiles.reports.attention import attention_patterns
from steering_profiles.steering import UNSTEERED
from steering_profiles.tasks.task import Example, Pair
from tests.builders import build_profile, steer
from tests.evaluation.test_decoding import PROMPTS, expected
from tests.families import CASES, WINDOW, build_family
from tests.fitting.test_circuit import effect, last_logits
from tests.fitting.test_fit import small_task
from tests.library.precision import InDouble
from tests.short_texts import use_short_texts

STEPWISE = StepwiseSettings(max_steps=2, validation_interval=2, batch_prompts=4)
TEXT = "a text of a few words"


def pairs_that_flip(loaded: LoadedModel) -> list[Pair]:
    """Return pairs of prompts of two lengths, longer than a sliding window, with different predictions."""
    pairs = []
    for first in range(30):
        clean = tuple((7 * first + i * i) % 200 for i in range(WINDOW + 3 + first % 2))
        counterfactual = tuple((7 * first + i * i + i) % 200 for i in range(WINDOW + 5))
        right, other = (int(last_logits(loaded, prompt).argmax()) for prompt in (clean, counterfactual))
        if right != other:
            pairs.append(Pair(Example("a", "", clean, right), Example("b", "", counterfactual, other)))
    assert len(pairs) >= 4
    return pairs[:4]


@pytest.mark.parametrize("case", CASES)
def test_patching_with_the_kv_cache_ranks_heads_like_full_passes(case: str):
    loaded = build_family(case)
    pairs, sizes = pairs_that_flip(loaded), loaded.anatomy.sizes
    heads = [Component("head", layer, head) for layer in range(sizes.layers) for head in range(sizes.heads)]
    effects = {c: sum(effect(loaded, pair, c.layer, c.index) for pair in pairs) for c in heads}
    assert rank_by_patching(loaded, pairs) == sorted(heads, key=lambda c: -effects[c])


@pytest.mark.parametrize("case", CASES)
def test_attention_weights_are_per_head_and_sum_to_one(case: str):
    loaded = build_family(case)
    one, other = attention_patterns(
        loaded, [Component("head", 1, 2), Component("head", 1, 3)], Example("x", "", tuple(range(5, 16)), 1)
    )
    assert one.weights.sum(axis=-1) == pytest.approx(1, abs=1e-5)
    assert one.weights.cumsum(axis=-1).diagonal() == pytest.approx(1, abs=1e-5), "it looks ahead"
    assert abs(one.weights - other.weights).max() > 1e-3


@pytest.mark.parametrize("case", CASES)
def test_prompts_of_a_padded_batch_are_completed_like_single_prompts(case: str):
    loaded = build_family(case)
    steerings = [UNSTEERED, steer(build_profile(loaded, heads=[(0, 1, 3.0), (1, 0, -1.0)], self_only_attention=1.0))]
    prompts = [prompt for prompt in PROMPTS for _ in steerings]
    # In float32 the mask value of float64 is infinite, and the softmax of a fully masked padding row is NaN.
    with InDouble(), GreedyDecoder(loaded) as decoder:
        texts = decoder.complete(prompts, steerings * len(PROMPTS), 10)
    assert texts == [expected(loaded, p, s, 10) for p, s in zip(prompts, steerings * len(PROMPTS), strict=True)]


@pytest.mark.parametrize("case", CASES)
def test_a_profile_is_fitted(case: str, monkeypatch: pytest.MonkeyPatch):
    use_short_texts(monkeypatch)
    loaded = build_family(case)
    whole = small_task(loaded)
    task = replace(whole, train=whole.train[::4], dev=whole.dev[::4], test=whole.test[::4], fit_formats={})
    kinds = ("head",) if loaded.anatomy.neurons_refused else ("head", "neuron")
    settings = FitSettings(kinds=kinds, stepwise=STEPWISE)
    result = fit(loaded, task, name="tiny", command="steer fit", settings=settings)
    assert check_compatibility(result.profile, loaded.identity).matches
    assert {component.kind for component in result.ranking.components} == set(kinds)
