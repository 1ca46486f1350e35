"""Rows of a batch, tokens of a ragged batch and steps of a decoding do not see each other's steering."""

import pytest
import torch
from transformers import DynamicCache

from steering_profiles.models import LoadedModel
from steering_profiles.steering import UNSTEERED, ProfileAtStrength, Steering, attach
from tests.builders import FAMILIES, build_model, build_profile, every_effect, steer
from tests.library.running import ROUND_OFF, TOKENS, logits, steered_logits

LENGTH = TOKENS.shape[1]


def arms(loaded: LoadedModel) -> dict[str, Steering]:
    """Steerings of a mixed batch: none, each effect, fractions, several profiles at several strengths."""
    a = build_profile(loaded, "a", heads=[(0, 2, 2.0), (2, 0, 3.0)])
    b = build_profile(loaded, "b", heads=[(0, 2, -1.0)], neurons=[(1, 6, 5.0)])
    mixed = Steering((ProfileAtStrength(a, -0.5), ProfileAtStrength(b, 2.0)))
    return {
        **every_effect(loaded),
        "a": steer(a),
        "a at a half": steer(a, strength=0.5),
        "a+b": steer(a, b),
        "-a+2b": mixed,
    }


@torch.no_grad()
def decoded_token_by_token(loaded: LoadedModel, steerings: list[list[Steering]]) -> torch.Tensor:
    """Logits of a cached decoding: per step, the steering of each row of the batch."""
    handle = attach(loaded)
    cache, steps = DynamicCache(config=loaded.model.config), []
    for position, steering in enumerate(steerings):
        token = TOKENS[:, position : position + 1].expand(len(steering), -1)
        with handle.applied(steering):
            steps.append(loaded.model(input_ids=token, past_key_values=cache, use_cache=True).logits)
    handle.remove()
    return torch.cat(steps, dim=1)


def test_a_mixed_batch_equals_the_single_runs_which_differ(tiny: LoadedModel):
    single = {name: steered_logits(tiny, steering)[0] for name, steering in arms(tiny).items()}
    names = list(single)
    for i, name in enumerate(names):
        for other in names[:i]:
            assert not torch.allclose(single[name], single[other], atol=1e-3), f"{name} does what {other} does"
    mixed = steered_logits(tiny, *arms(tiny).values())
    for row, name in enumerate(names):
        torch.testing.assert_close(mixed[row], single[name], **ROUND_OFF, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_steering_other_rows_leaves_an_unsteered_row_bit_identical(family: str, dtype: torch.dtype):
    loaded = build_model(family, dtype=dtype)
    steerings = [UNSTEERED, *arms(loaded).values(), UNSTEERED]
    plain = logits(loaded, TOKENS.expand(len(steerings), -1))
    mixed = steered_logits(loaded, *steerings)
    assert torch.equal(mixed[0], plain[0])
    assert torch.equal(mixed[-1], plain[-1])


def test_cached_decoding_equals_the_full_forward_under_every_effect(tiny: LoadedModel):
    steerings = list(arms(tiny).values())
    decoded = decoded_token_by_token(tiny, [steerings] * LENGTH)
    torch.testing.assert_close(decoded, steered_logits(tiny, *steerings), **ROUND_OFF)


def test_a_sequence_of_a_ragged_batch_is_steered_like_a_row_of_a_padded_one(tiny: LoadedModel):
    for name, steering in arms(tiny).items():
        handle = attach(tiny)
        row = handle.acquire(steering)
        with handle.step([row] * LENGTH, ragged=True):
            ragged = logits(tiny)
        handle.remove()
        torch.testing.assert_close(
            ragged, steered_logits(tiny, steering), **ROUND_OFF, msg=lambda m, name=name: f"{name}: {m}"
        )


def test_each_token_of_a_ragged_batch_has_its_own_steering(tiny: LoadedModel):
    """The same tokens decoded one a step, each step steered alone, are the oracle."""
    per_token = (list(arms(tiny).values()) * 2)[:LENGTH]
    expected = decoded_token_by_token(tiny, [[steering] for steering in per_token])
    handle = attach(tiny)
    rows = [handle.acquire(steering) for steering in per_token]
    with handle.step(rows, ragged=True):
        ragged = logits(tiny)
    handle.remove()
    torch.testing.assert_close(ragged, expected, **ROUND_OFF)
    assert not torch.allclose(ragged, logits(tiny))
