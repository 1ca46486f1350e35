"""Qwen2 and 2.5: as Llama, with biases on queries, keys and values."""

from dataclasses import replace

from steering_profiles.models.anatomy import GatedBlock
from steering_profiles.models.families.llama import LLAMA_LIKE

QWEN2 = replace(
    LLAMA_LIKE,
    name="qwen2",
    models="Qwen2, Qwen2.5, Qwen2.5-Coder",
    architectures=("Qwen2ForCausalLM",),
    gated_block=GatedBlock(window=lambda attention: attention.sliding_window),
)
