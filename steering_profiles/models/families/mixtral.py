"""Mixtral: as Mistral, with a mixture of experts as MLP."""

from dataclasses import replace

from transformers import PretrainedConfig

from steering_profiles.models.anatomy import Experts
from steering_profiles.models.families.llama import LLAMA_LIKE


def _neurons(config: PretrainedConfig) -> int:
    return int(config.num_local_experts * config.intermediate_size)


MIXTRAL = replace(
    LLAMA_LIKE,
    name="mixtral",
    models="Mixtral 8x7B, 8x22B",
    architectures=("MixtralForCausalLM",),
    neuron_output=Experts(
        neurons=_neurons,
        refused="keeps its neurons in experts, each of which sees some tokens only and has no down projection to hook",
    ),
)
