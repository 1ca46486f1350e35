"""OLMo: as Llama, with layer norms that have no weights."""

from dataclasses import replace

from steering_profiles.models.families.llama import LLAMA_LIKE

OLMO = replace(
    LLAMA_LIKE,
    name="olmo",
    models="OLMo",
    architectures=("OlmoForCausalLM",),
    norm="layer",
)
