"""OLMo 2: as Llama, with norms after attention and MLP instead of before them, and on queries and keys."""

from dataclasses import replace

from steering_profiles.models.families.llama import LLAMA_LIKE

OLMO2 = replace(
    LLAMA_LIKE,
    name="olmo2",
    models="OLMo 2",
    architectures=("Olmo2ForCausalLM",),
    attention_norm="post_attention_layernorm",
    mlp_norm="post_feedforward_layernorm",
)
