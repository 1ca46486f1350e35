"""The engine generates the same whether a model's layers are in memory, on disk, fetched or on several devices."""

from pathlib import Path

import pytest
import torch

from steering_profiles.models import LoadedModel
from steering_profiles.steering import UNSTEERED, Steering
from steering_server.engines.local.prepacking import PrepackedLinears
from steering_server.generation.requests import GenerationRequest
from tests.builders import build_profile, steer
from tests.engines.local.running import GREEDY, PROMPTS, running
from tests.placing import PLACED, PLACEMENTS, load_placed, save_family


def arms(loaded: LoadedModel) -> list[Steering]:
    """No steering, scales, effects of the final layer, and the same with a gate."""
    last = loaded.anatomy.sizes.layers - 1
    neurons = [(0, 2, 4.0), (1, 7, 0.0), (last, 11, 6.0)] if loaded.anatomy.neurons_refused is None else []
    profiles = [
        build_profile(loaded, "scales", heads=[(0, 1, 3.0), (1, 0, -1.0), (last, 3, 2.5)], neurons=neurons),
        build_profile(loaded, "final", self_only_attention=1.0, intercept_scale=0.7),
        build_profile(loaded, "gated", self_only_attention=1.0, intercept_scale=0.7, gate=(0.0, 0.5)),
    ]
    return [UNSTEERED, *[steer(profile) for profile in profiles]]


def generated(loaded: LoadedModel) -> list[tuple[int, ...]]:
    """Tokens of one mixed batch, and of the same again, which reuses the KV cache of the first."""
    requests = [GenerationRequest(prompt, GREEDY, arm) for arm in arms(loaded) for prompt in PROMPTS]
    with running(loaded) as engine:
        return [chunk.tokens for _ in range(2) for chunk in engine.run(*requests)]


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("case", PLACED)
def test_a_mixed_batch_generates_the_same_as_in_memory(case: str, placement: str, tmp_path: Path):
    folder = save_family(case, tmp_path / "model")
    expected = generated(load_placed(case, folder))
    assert len(set(expected)) > 2 * len(PROMPTS), "the prompts and arms hardly differ"
    assert generated(load_placed(case, folder, placement)) == expected


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_weights_that_accelerate_moves_are_not_prepacked(placement: str, tmp_path: Path):
    loaded = load_placed("llama", save_family("llama", tmp_path / "model"), placement, dtype="float32")
    before = {name: parameter.data_ptr() for name, parameter in loaded.model.named_parameters()}
    prepacked = PrepackedLinears(loaded.model)
    with torch.inference_mode():
        logits = loaded.model(torch.tensor([PROMPTS[0]], device=loaded.input_device)).logits
    assert logits.isfinite().all()
    assert {name: parameter.data_ptr() for name, parameter in loaded.model.named_parameters()} == before
    prepacked.close()
