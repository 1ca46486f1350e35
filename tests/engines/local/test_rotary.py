"""Rotary embeddings by position are those that transformers' module computes."""

import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from steering_server.engines.local.rotary import Rotation

KINDS = {
    "default": {"rope_type": "default"},
    "linear": {"rope_type": "linear", "factor": 4.0},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    },
    "dynamic": {"rope_type": "dynamic", "factor": 2.0},
}
LENGTH = 200


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_every_position_has_the_bits_of_transformers_own(kind: str, dtype: torch.dtype):
    config = LlamaConfig(
        hidden_size=64,
        num_attention_heads=4,
        max_position_embeddings=64,  # fewer than are computed: some kinds depend on that
        rope_parameters={"rope_theta": 10000.0, **KINDS[kind]},
    )
    positions = torch.tensor([0, 1, 63, 64, 150, 3, 199, 7])
    # As many as fill PyTorch's vectors, in which it computes otherwise.
    together = positions.repeat(32).unsqueeze(0)
    expected = LlamaRotaryEmbedding(config)(torch.empty(0, dtype=dtype), together)

    found = Rotation(LlamaRotaryEmbedding(config), config, dtype, LENGTH)(positions)

    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours[: len(positions)], theirs[0, : len(positions)])
