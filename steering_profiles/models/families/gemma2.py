"""Gemma 2: norms before and after attention and MLP, soft-capped scores and logits, alternating sliding windows."""

from dataclasses import replace

from steering_profiles.models.families.llama import LLAMA_LIKE

GEMMA2 = replace(
    LLAMA_LIKE,
    name="gemma2",
    models="Gemma 2",
    architectures=("Gemma2ForCausalLM",),
    norm="rms of 1 + weight",
    attention_norm="post_attention_layernorm",
    mlp_norm="post_feedforward_layernorm",
)
