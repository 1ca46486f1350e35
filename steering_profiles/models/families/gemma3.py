"""Gemma 3: as Gemma 2, with norms on queries and keys instead of soft caps."""

from dataclasses import replace

from steering_profiles.models.families.llama import LLAMA_LIKE

GEMMA3 = replace(
    LLAMA_LIKE,
    name="gemma3",
    models="Gemma 3 270M, 1B",
    architectures=("Gemma3ForCausalLM",),
    norm="rms of 1 + weight",
    attention_norm="post_attention_layernorm",
    mlp_norm="post_feedforward_layernorm",
)

GEMMA3_WITH_VISION = replace(
    GEMMA3,
    name="gemma3-with-vision",
    models="Gemma 3 4B, 12B, 27B, for text",
    architectures=("Gemma3ForConditionalGeneration",),
    blocks="model.language_model.layers",
    final_norm="model.language_model.norm",
)
