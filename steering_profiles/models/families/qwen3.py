"""Qwen3: as Llama, with norms on queries and keys."""

from dataclasses import replace

from steering_profiles.models.families.llama import LLAMA

QWEN3 = replace(
    LLAMA,
    name="qwen3",
    models="Qwen3",
    architectures=("Qwen3ForCausalLM",),
)
