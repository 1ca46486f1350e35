"""Applying a profile to a plain transformers model."""

import pytest
import torch

from steering_profiles import find_profile
from steering_profiles.errors import GateError, ProfileMismatch, StrengthError
from steering_profiles.models import LoadedModel
from tests.builders import build_model, build_profile, greedy, steer
from tests.library.running import hooks_on

PROMPT = [[5, 6, 7, 8]]


def generated(loaded: LoadedModel, prompts: list[list[int]], tokens: int = 8) -> list[list[int]]:
    ids = torch.tensor(prompts)
    found = loaded.model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False,
        pad_token_id=0,
    )  # fmt: skip
    return found[:, len(prompts[0]) :].tolist()


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_generate_is_steered_while_the_context_lasts_and_plain_again_after_it(tiny: LoadedModel, strength: float):
    profile = build_profile(
        tiny, heads=[(0, 1, 4.0)], neurons=[(1, 3, -2.0)], self_only_attention=0.5, intercept_scale=0.4
    )
    plain = generated(tiny, PROMPT)
    with profile.apply(tiny.model, strength=strength):
        steered = generated(tiny, PROMPT)
    assert steered == [greedy(tiny, PROMPT[0], steer(profile, strength=strength), tokens=8)] != plain
    assert generated(tiny, PROMPT) == plain
    assert hooks_on(tiny) == 0


def test_every_sequence_of_a_batch_is_steered_alike(tiny: LoadedModel):
    profile = build_profile(tiny, heads=[(0, 1, 4.0)], self_only_attention=0.5, intercept_scale=0.4)
    prompts = [[5, 6, 7, 8], [9, 10, 11, 12], [40, 41, 42, 43]]
    with profile.apply(tiny.model):
        together = generated(tiny, prompts)
    assert together == [greedy(tiny, prompt, steer(profile), tokens=8) for prompt in prompts]


def test_an_error_in_the_context_removes_the_hooks(tiny: LoadedModel):
    profile = build_profile(tiny, heads=[(0, 1, 4.0)])
    with pytest.raises(RuntimeError, match="mine"), profile.apply(tiny.model):
        raise RuntimeError("mine")
    assert hooks_on(tiny) == 0


def test_another_model_is_refused_and_can_be_forced_where_the_shapes_permit(tiny: LoadedModel):
    profile = build_profile(tiny, heads=[(0, 1, 4.0)])
    other = profile.model_copy(update={"model": profile.model.model_copy(update={"vocab_size": 7})})
    with pytest.raises(ProfileMismatch, match="vocab_size"), other.apply(tiny.model):
        pass
    with other.apply(tiny.model, force=True):
        assert generated(tiny, PROMPT)
    changed = profile.model_copy(update={"model": profile.model.model_copy(update={"fingerprint": "sha256:0"})})
    with pytest.raises(ProfileMismatch, match="fingerprint"), changed.apply(tiny.model, tokenizer=tiny.tokenizer):
        pass


def test_strengths_out_of_range_and_gates_are_refused():
    loaded = build_model("llama")
    with pytest.raises(StrengthError), build_profile(loaded, heads=[(0, 1, 4.0)]).apply(loaded.model, strength=11):
        pass
    with pytest.raises(GateError), build_profile(loaded, self_only_attention=1, gate=(0.1, 0.5)).apply(loaded.model):
        pass


def test_the_shipped_profile_closes_four_parentheses_in_a_plain_model(embedded: LoadedModel):
    model, tokenizer = embedded.model, embedded.tokenizer
    prompt = tokenizer("#print the string 123\nprint(str(str(str(123", return_tensors="pt")
    with find_profile("parentheses").apply(model, tokenizer=tokenizer):
        steered = model.generate(**prompt, max_new_tokens=1, do_sample=False)
    plain = model.generate(**prompt, max_new_tokens=1, do_sample=False)
    assert tokenizer.decode(steered[0, -1]) == "))))"
    assert tokenizer.decode(plain[0, -1]) == ")))"
