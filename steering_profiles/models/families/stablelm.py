"""StableLM: gated MLP, layer norms, rotary positions on part of a head; the residual is parallel in some."""

from dataclasses import replace

from steering_profiles.models.families.llama import LLAMA_LIKE

STABLELM = replace(
    LLAMA_LIKE,
    name="stablelm",
    models="StableLM 3B, StableLM 2",
    architectures=("StableLmForCausalLM",),
    norm="layer",
)
