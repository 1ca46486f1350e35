"""OLMo: as Llama, with layer norms that have no weights."""

from dataclasses import replace

from steering_profiles.models.families.llama import LLAMA

OLMO = replace(
    LLAMA,
    name="olmo",
    models="OLMo",
    architectures=("OlmoForCausalLM",),
    norm="layer",
)
