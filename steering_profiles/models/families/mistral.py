"""Mistral: as Llama, with a sliding window in older versions."""

from dataclasses import replace

from steering_profiles.models.anatomy import GatedBlock
from steering_profiles.models.families.llama import LLAMA_LIKE

MISTRAL = replace(
    LLAMA_LIKE,
    name="mistral",
    models="Mistral 7B, Mistral Nemo",
    architectures=("MistralForCausalLM",),
    gated_block=GatedBlock(window=lambda attention: attention.config.sliding_window),
)
