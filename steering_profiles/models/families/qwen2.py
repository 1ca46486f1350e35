"""Qwen2 and 2.5: as Llama, with biases on queries, keys and values."""

from dataclasses import replace

from steering_profiles.models.families.llama import LLAMA

QWEN2 = replace(
    LLAMA,
    name="qwen2",
    models="Qwen2, Qwen2.5, Qwen2.5-Coder",
    architectures=("Qwen2ForCausalLM",),
)
