"""Passes that start at the last block give the results of whole passes."""

import pytest
import torch

from steering_profiles.evaluation import FinalLayerReplay, TextPredictor, TokenPredictor, text_windows
from steering_profiles.models import LoadedModel
from steering_profiles.steering import UNSTEERED
from steering_profiles.tasks.task import Example
from tests.builders import build_model, build_profile, every_effect, steer

EXAMPLES = [Example("g", "", tuple(range(5 * i, 5 * i + 3 + i % 2)), i) for i in range(12)]


class Counted:
    """Counter of the forward passes of a block."""

    def __init__(self, loaded: LoadedModel, layer: int) -> None:
        self.passes = 0
        self._module = loaded.anatomy.layers[layer].mlp
        self._module.register_forward_hook(self._count)

    def _count(self, *_: object) -> None:
        self.passes += 1


def test_every_steering_gives_the_same_bits_as_the_whole_model(tiny: LoadedModel):
    replay = FinalLayerReplay(tiny)
    with TokenPredictor(tiny) as whole, TokenPredictor(tiny, replay) as short:
        expected = {name: whole.answers(EXAMPLES, steering) for name, steering in every_effect(tiny).items()}
        for _ in range(2):  # the first pass fills the cache
            assert {name: short.answers(EXAMPLES, s) for name, s in every_effect(tiny).items()} == expected
    assert expected["self-only attention"] != expected["intercept"] != expected["plain"]


def test_texts_are_predicted_the_same(tiny: LoadedModel):
    texts = {"a": text_windows(tiny, "Some text, and some more of it.", 12)}
    own = steer(build_profile(tiny, self_only_attention=0.5, intercept_scale=-0.3))
    with TextPredictor(tiny) as whole, TextPredictor(tiny, FinalLayerReplay(tiny)) as short:
        assert short.measure(texts, own) == whole.measure(texts, own)
        assert short.measure(texts, own).worst.nll_increase != 0


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_second_pass_computes_the_last_block_alone(family: str):
    loaded = build_model(family)
    below, last = Counted(loaded, 1), Counted(loaded, 2)
    with TokenPredictor(loaded, FinalLayerReplay(loaded)) as predictor:
        predictor.answers(EXAMPLES)
        once = below.passes
        predictor.answers(EXAMPLES, steer(build_profile(loaded, self_only_attention=1.0)))
        assert (below.passes, last.passes) == (once, 2 * once)
        predictor.answers(EXAMPLES, steer(build_profile(loaded, heads=[(1, 0, 2.0)])))
        assert below.passes == 2 * once


def test_other_tokens_of_the_same_shape_are_computed_in_full(tiny: LoadedModel):
    others = [Example("g", "", tuple(token + 100 for token in one.prompt), one.answer) for one in EXAMPLES]
    with TokenPredictor(tiny) as whole, TokenPredictor(tiny, FinalLayerReplay(tiny)) as short:
        short.answers(EXAMPLES)
        assert short.answers(others) == whole.answers(others) != whole.answers(EXAMPLES)


def test_a_model_of_one_block_is_computed_in_full(tiny: LoadedModel):
    loaded = build_model(tiny.anatomy.family.name, layers=1)
    with TokenPredictor(loaded) as whole, TokenPredictor(loaded, FinalLayerReplay(loaded)) as short:
        for name, steering in every_effect_of_one_block(loaded).items():
            assert short.answers(EXAMPLES, steering) == whole.answers(EXAMPLES, steering), name


def every_effect_of_one_block(loaded: LoadedModel):
    return {"plain": UNSTEERED, "own": steer(build_profile(loaded, self_only_attention=1.0))}


def test_blocks_are_restored_even_if_a_pass_fails(tiny: LoadedModel):
    replay, tokens = FinalLayerReplay(tiny), torch.tensor([[1, 2, 3]])
    before = tiny.model(tokens).logits
    with replay.over(tokens, UNSTEERED):
        tiny.model(tokens)
    block = tiny.anatomy.layers[0].block
    kept = block.forward
    block.forward = kept  # as accelerate does it
    with pytest.raises(RuntimeError), replay.over(tokens, UNSTEERED):
        raise RuntimeError
    assert vars(block)["forward"] is kept
    assert "forward" not in vars(tiny.anatomy.layers[1].block)
    assert torch.equal(tiny.model(tokens).logits, before)
