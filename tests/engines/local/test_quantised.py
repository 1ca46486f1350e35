"""The engine runs models of quantised weights as transformers does, and leaves their layers alone."""

from pathlib import Path

import pytest
import torch

from steering_profiles.steering import UNSTEERED
from steering_server.engines.local.prepacking import PrepackedLinears
from steering_server.generation.requests import GenerationRequest
from tests.builders import build_profile, greedy, steer
from tests.engines.local.running import GREEDY, PROMPTS, running
from tests.engines.local.test_families import generated
from tests.library.running import logits
from tests.quantised import METHODS, ROUND_THEIR_INPUTS, load, save_quantised

COARSE = (*ROUND_THEIR_INPUTS, "bitsandbytes-nf4")
"""Methods with so coarse a rounding that the order of a sum decides between nearly equally likely tokens."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("quantised")


@pytest.fixture(params=METHODS)
def folder(request: pytest.FixtureRequest, root: Path) -> Path:
    """A saved checkpoint of each method."""
    path = root / request.param
    return path if path.is_dir() else save_quantised("llama", request.param, path)


def test_a_mixed_batch_generates_what_transformers_does_for_each_alone(folder: Path):
    loaded = load(folder)
    heads = steer(build_profile(loaded, "heads", heads=[(0, 1, 3.0), (1, 0, -1.0), (2, 3, 2.5)], neurons=[(1, 7, 4.0)]))
    final = steer(build_profile(loaded, "final", self_only_attention=1.0, intercept_scale=0.7))
    arms = [UNSTEERED, heads, final]
    expected = [generated(loaded, prompt) for prompt in PROMPTS]
    expected += [tuple(greedy(loaded, prompt, arm)) for arm in arms[1:] for prompt in PROMPTS]
    assert len(set(expected)) > 2 * len(PROMPTS), "the prompts and arms hardly differ"
    with running(loaded) as engine:
        requests = [GenerationRequest(prompt, GREEDY, arm) for arm in arms for prompt in PROMPTS]
        answers = [chunk.tokens for chunk in engine.run(*requests)]
    alike = sum(answer == alone for answer, alone in zip(answers, expected, strict=True))
    first = sum(answer[0] == alone[0] for answer, alone in zip(answers, expected, strict=True))
    assert alike == len(expected) if folder.name not in COARSE else first > 0.8 * len(expected), (alike, first)


def test_quantised_layers_are_not_prepacked_and_the_others_are_restored(folder: Path):
    loaded = load(folder)
    before = logits(loaded)
    # newer versions of compressed-tensors replace the forward of every layer, quantised or not
    is_own = "forward" in vars(loaded.anatomy.unembedding)
    prepacked = PrepackedLinears(loaded.model)
    is_dense = folder.name == "fp8"
    for module in (loaded.anatomy.layers[0].head_output, loaded.anatomy.neuron_output(1)):
        assert ("forward" in vars(module) and bool(module.weight.isnan().all())) == is_dense
    assert bool(loaded.anatomy.unembedding.weight.isnan().all()) != is_own
    torch.testing.assert_close(logits(loaded), before, atol=1e-3, rtol=1e-3)
    prepacked.close()
    assert torch.equal(logits(loaded), before)
