"""What only a GPU can show: captured decoding steps, attention in place, and what is not promised there."""

import pytest
import torch

from steering_profiles.models import LoadedModel
from steering_profiles.models.loading import assemble
from steering_profiles.steering import UNSTEERED
from steering_server.generation.requests import GenerationRequest
from tests.builders import build_profile, steer
from tests.engines.local.running import GREEDY, PROMPTS, running
from tests.families import build_family

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
    pytest.mark.timeout(600),
]

FAMILIES = {
    "llama": {"hidden_size": 128},
    "gpt2": {"n_embd": 128},
    "gemma2": {"hidden_size": 128, "head_dim": 32},  # softcaps, sliding windows
    "qwen3": {"hidden_size": 128, "head_dim": 32},
    "mistral": {"hidden_size": 128},
}


def on_gpu(case: str) -> LoadedModel:
    loaded = build_family(case, dtype=torch.float32, **FAMILIES[case])
    return assemble(loaded.name, loaded.model.to("cuda"), loaded.tokenizer)


def requests_of(loaded: LoadedModel) -> list[GenerationRequest]:
    last = loaded.anatomy.sizes.layers - 1
    heads = build_profile(loaded, "heads", heads=[(0, 1, 3.0), (1, 0, -1.0), (last, 3, 2.5)], neurons=[(0, 2, 4.0)])
    final = build_profile(loaded, "final", self_only_attention=1.0, intercept_scale=0.7)
    gated = build_profile(loaded, "gated", self_only_attention=1.0, intercept_scale=0.7, gate=(0.0, 0.5))
    arms = [UNSTEERED, steer(heads), steer(final), steer(gated)]
    return [GenerationRequest(prompt, GREEDY, arm) for arm in arms for prompt in PROMPTS]


@pytest.fixture(autouse=True)
def exact_products() -> None:
    """Products in float32, so that greedy choices can be compared."""
    torch.backends.cuda.matmul.fp32_precision = "ieee"


@pytest.mark.parametrize("case", FAMILIES)
def test_captured_steps_generate_the_tokens_of_plain_ones_and_of_the_cpu(case: str):
    on_cpu = build_family(case, dtype=torch.float32, **FAMILIES[case])
    requests = requests_of(on_cpu)
    with running(on_cpu) as engine:
        expected = [chunk.tokens for chunk in engine.run(*requests)]
    loaded = on_gpu(case)
    for graphs in (False, True):
        with running(loaded, cuda_graphs=graphs) as engine:
            assert (engine.engine.graphs_refused is None) == graphs, engine.engine.graphs_refused
            assert [chunk.tokens for chunk in engine.run(*requests, timeout=500)] == expected


def test_batch_invariance_is_not_promised_on_a_gpu():
    with running(on_gpu("llama")) as engine:
        assert not engine.engine.batch_invariance.holds
        assert engine.engine.batch_invariance.reason
