"""Profiles are refused on other models, with the reason, or forced if possible."""

import pytest

from steering_profiles.compatibility import check_compatibility, require_compatible
from steering_profiles.errors import ProfileMismatch
from steering_profiles.final_layer_fields import FinalLayer
from steering_profiles.schema import NeuronScale, Profile
from tests.library.examples import INTERCEPT, MODEL, example

WITH_INTERCEPT = example(heads=(), final_layer=FinalLayer(intercept_scale=1.0), tensors=INTERCEPT)


def test_a_profile_fits_its_model_under_any_name():
    renamed = MODEL.model_copy(update={"id": "renamed"})
    assert check_compatibility(example(), renamed).matches
    assert require_compatible(example(), renamed).matches


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"architecture": "GPT2LMHeadModel"}, "architecture is GPT2LMHeadModel here, LlamaForCausalLM in the profile"),
        ({"layers": 5}, "layers is 5 here, 4 in the profile"),
        ({"heads": 6}, "heads is 6 here, 3 in the profile"),
        ({"kv_heads": 1}, "kv_heads is 1 here, 3 in the profile"),
        ({"head_dim": 4}, "head_dim is 4 here, 2 in the profile"),
        ({"neurons": 9}, "neurons is 9 here, 8 in the profile"),
        ({"hidden_size": 12}, "hidden_size is 12 here, 6 in the profile"),
        ({"vocab_size": 51}, "vocab_size is 51 here, 50 in the profile"),
        ({"fingerprint": "sha256:1"}, "the fingerprint of config and tokenizer differs"),
    ],
)
def test_another_model_is_refused_with_the_reason_and_can_be_forced(change: dict, reason: str):
    other = MODEL.model_copy(update={**change, "id": "other-model"})
    with pytest.raises(
        ProfileMismatch, match=rf"'example' was made for some-model, not for other-model: {reason}.*forced"
    ):
        require_compatible(example(), other)
    forced = require_compatible(example(), other, force=True)
    assert not forced.matches
    assert reason in "; ".join(forced.differences)


def test_all_differences_are_named_at_once():
    other = MODEL.model_copy(update={"layers": 5, "hidden_size": 12})
    with pytest.raises(ProfileMismatch, match=r"layers is 5 here.*; hidden_size is 12 here"):
        require_compatible(example(), other)


@pytest.mark.parametrize(
    ("profile", "change", "reason"),
    [
        (example(), {"layers": 1}, "layer 1 head 2, but the model has 1 layers of 3 heads"),
        (example(), {"heads": 2}, "layer 1 head 2, but the model has 4 layers of 2 heads"),
        (
            example(neurons=(NeuronScale(layer=0, neuron=7, scale=2.0),)),
            {"neurons": 7},
            "layer 0 neuron 7, but the model has 4 layers of 7",
        ),
        (WITH_INTERCEPT, {"hidden_size": 7}, "the intercept has 6 entries, but the model's hidden size is 7"),
    ],
)
@pytest.mark.parametrize("force", [False, True])
def test_force_does_not_apply_components_that_the_model_lacks(profile: Profile, change: dict, reason: str, force: bool):
    with pytest.raises(ProfileMismatch, match=reason) as caught:
        require_compatible(profile, MODEL.model_copy(update=change), force=force)
    assert "can be forced" not in str(caught.value)


def test_an_intercept_is_forced_onto_any_model_of_its_width():
    other = MODEL.model_copy(update={"layers": 1, "heads": 1, "fingerprint": "sha256:1"})
    assert require_compatible(WITH_INTERCEPT, other, force=True).obstacles == ()
