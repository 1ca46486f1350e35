"""Qwen3 with a mixture of experts as MLP."""

from dataclasses import replace

from transformers import PretrainedConfig

from steering_profiles.models.anatomy import Experts
from steering_profiles.models.families.llama import LLAMA_LIKE


def _neurons(config: PretrainedConfig) -> int:
    return int(config.num_experts * config.moe_intermediate_size)


QWEN3_MOE = replace(
    LLAMA_LIKE,
    name="qwen3-moe",
    models="Qwen3-30B-A3B, Qwen3-235B-A22B",
    architectures=("Qwen3MoeForCausalLM",),
    neuron_output=Experts(
        neurons=_neurons,
        refused="keeps its neurons in experts, each of which sees some tokens only and has no down projection to hook",
    ),
)
