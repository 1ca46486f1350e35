"""Gemma 3: as Gemma 2, with norms on queries and keys instead of soft caps."""

from dataclasses import replace

from steering_profiles.models.families.llama import LLAMA

GEMMA3 = replace(
    LLAMA,
    name="gemma3",
    models="Gemma 3 (text)",
    architectures=("Gemma3ForCausalLM",),
    norm="rms of 1 + weight",
    attention_norm="post_attention_layernorm",
    mlp_norm="post_feedforward_layernorm",
)
