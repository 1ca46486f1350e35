"""Qwen3: as Llama, with norms on queries and keys."""

from dataclasses import replace

from steering_profiles.models.anatomy import GatedBlock
from steering_profiles.models.families.llama import LLAMA_LIKE

QWEN3 = replace(
    LLAMA_LIKE,
    name="qwen3",
    models="Qwen3",
    architectures=("Qwen3ForCausalLM",),
    gated_block=GatedBlock(
        query_norm="self_attn.q_norm",
        key_norm="self_attn.k_norm",
        window=lambda attention: attention.sliding_window,
    ),
)
