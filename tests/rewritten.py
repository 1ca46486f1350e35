"""A Llama model rewritten as models of other architectures, which compute the same with other weights."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

_SAME = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act"),
    *("num_key_value_heads", "head_dim", "max_position_embeddings", "rms_norm_eps", "rope_parameters"),
    *("tie_word_embeddings", "bos_token_id", "eos_token_id", "pad_token_id"),
)
"""Settings that these architectures have in common."""


def rewritten(llama: PreTrainedModel, architecture: str) -> PreTrainedModel:
    """Return a model of one of the :data:`ARCHITECTURES` that computes what ``llama`` does, to rounding."""
    settings, rewrite = ARCHITECTURES[architecture]
    config = AutoConfig.for_model(architecture, **{name: getattr(llama.config, name) for name in _SAME}, **settings)
    # Grouped products of experts, the default, are not there in float64.
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, experts_implementation="eager").to(llama.dtype)
    weights = _Weights(llama)
    rewrite(weights)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weights.pop(name))
    assert not weights, f"left over: {', '.join(weights)}"
    return model.eval()


class _Weights(dict[str, Tensor]):
    """Llama's weights by name, to be given other names and values."""

    def __init__(self, llama: PreTrainedModel) -> None:
        super().__init__({name: parameter.detach() for name, parameter in llama.named_parameters()})
        self.head_dim: int = llama.config.head_dim

    def named(self, part: str) -> list[str]:
        return [name for name in self if part in name]

    def scale(self, part: str, factor: float) -> None:
        for name in self.named(part):
            self[name] = self[name] * factor

    def join(self, parts: list[str], into: str) -> None:
        for first in self.named(f".{parts[0]}."):
            joined = [self.pop(first.replace(parts[0], part)) for part in parts]
            self[first.replace(parts[0], into)] = torch.cat(joined)


def _keep(weights: _Weights) -> None:
    """The weights are those of Llama."""


def _add_biases(weights: _Weights) -> None:
    for name in [name for part in "qkv" for name in weights.named(f"{part}_proj")]:
        weights[name.replace("weight", "bias")] = torch.zeros(len(weights[name]))


def _fuse(weights: _Weights) -> None:
    weights.join(["q_proj", "k_proj", "v_proj"], "qkv_proj")
    weights.join(["gate_proj", "up_proj"], "gate_up_proj")


def _divide_by_multipliers(weights: _Weights) -> None:
    weights.scale("embed_tokens", 1 / 8)
    weights.scale("q_proj", weights.head_dim**-0.5)
    weights.scale("o_proj", 4)
    weights.scale("down_proj", 4)


def _count_gains_from_one(weights: _Weights) -> None:
    for name in weights.named("norm"):
        weights[name] = weights[name] - 1
    for name in weights.named("embed_tokens"):
        weights[name] = weights[name] / weights[name].shape[-1] ** 0.5


def _make_experts(weights: _Weights) -> None:
    weights.join(["gate_proj", "up_proj"], "experts.gate_up_proj")
    for name in weights.named("experts.gate_up_proj"):
        down, router = name.replace("experts.gate_up_proj", "down_proj"), name.replace("experts.gate_up_proj", "gate")
        weights[name.removesuffix(".weight")] = weights.pop(name)[None]
        weights[down.replace("down_proj.weight", "experts.down_proj")] = weights.pop(down)[None]
        weights[router] = torch.zeros(1, weights[name.removesuffix(".weight")].shape[-1])


ARCHITECTURES: dict[str, tuple[dict[str, Any], Callable[[_Weights], None]]] = {
    "mistral": ({"sliding_window": None}, _keep),
    "qwen2": ({}, _add_biases),
    "phi3": ({"sliding_window": None}, _fuse),
    "smollm3": ({"no_rope_layer_interval": 100}, _keep),
    "mixtral": ({"num_local_experts": 1, "num_experts_per_tok": 1}, _make_experts),
    # Only where the unembedding is not the embedding, which these two multiply:
    "gemma": ({}, _count_gains_from_one),
    "granite": ({"embedding_multiplier": 8.0, "residual_multiplier": 0.25}, _divide_by_multipliers),
}
"""By model type of transformers: the settings, and what becomes of Llama's weights."""
