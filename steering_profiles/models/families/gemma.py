"""Gemma: as Llama, with scaled embeddings and norms that multiply by one more than their weight."""

from dataclasses import replace

from steering_profiles.models.families.llama import LLAMA_LIKE

GEMMA = replace(
    LLAMA_LIKE,
    name="gemma",
    models="Gemma",
    architectures=("GemmaForCausalLM",),
    norm="rms of 1 + weight",
)
