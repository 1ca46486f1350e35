"""OLMo 3: as OLMo 2, with sliding windows in most layers."""

from dataclasses import replace

from steering_profiles.models.families.llama import LLAMA_LIKE

OLMO3 = replace(
    LLAMA_LIKE,
    name="olmo3",
    models="OLMo 3",
    architectures=("Olmo3ForCausalLM",),
    attention_norm="post_attention_layernorm",
    mlp_norm="post_feedforward_layernorm",
)
