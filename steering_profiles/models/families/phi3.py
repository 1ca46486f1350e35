"""Phi-3 and Phi-4: as Llama, with queries, keys and values in one projection, and gate and up in another."""

from dataclasses import replace

from steering_profiles.models.families.llama import LLAMA_LIKE
from steering_profiles.models.values import fused_last

PHI3 = replace(
    LLAMA_LIKE,
    name="phi3",
    models="Phi-3, Phi-3.5, Phi-4",
    architectures=("Phi3ForCausalLM",),
    values="self_attn.qkv_proj",
    select_values=fused_last,
)
