"""Mistral: as Llama, with a sliding window in older versions."""

from dataclasses import replace

from steering_profiles.models.families.llama import LLAMA

MISTRAL = replace(
    LLAMA,
    name="mistral",
    models="Mistral 7B, Mistral Nemo",
    architectures=("MistralForCausalLM",),
)
