"""Granite: as Llama, with multipliers of embeddings, attention scores, attention and MLP outputs, and logits."""

from dataclasses import replace

from transformers import PretrainedConfig

from steering_profiles.models.families.llama import LLAMA_LIKE


def _residual_multiplier(config: PretrainedConfig) -> float:
    return float(config.residual_multiplier)


GRANITE = replace(
    LLAMA_LIKE,
    name="granite",
    models="Granite 3",
    architectures=("GraniteForCausalLM",),
    residual_multiplier=_residual_multiplier,
)
