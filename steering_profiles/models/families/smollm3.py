"""SmolLM3: as Llama, with layers that have no positions."""

from dataclasses import replace

from steering_profiles.models.families.llama import LLAMA_LIKE

SMOLLM3 = replace(
    LLAMA_LIKE,
    name="smollm3",
    models="SmolLM3",
    architectures=("SmolLM3ForCausalLM",),
)
