"""Falcon: parallel residual, layer norms, one key-value head (7B), a few (40B, 180B, Falcon 2) or all (RW)."""

from dataclasses import replace
from typing import Any

from torch import Tensor
from transformers import AttentionInterface, PretrainedConfig
from transformers.models.falcon.modeling_falcon import apply_rotary_pos_emb

from steering_profiles.models.anatomy import Family
from steering_profiles.models.values import fused_by_group


def _kv_heads(config: PretrainedConfig) -> int:
    if config.new_decoder_architecture:
        return int(config.num_kv_heads)
    return 1 if config.multi_query else int(config.num_attention_heads)


def _attend(
    self: Any,
    hidden_states: Tensor,
    *,
    position_embeddings: tuple[Tensor, Tensor],
    attention_mask: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Compute ``FalconAttention`` with rotary positions, without a cache, on ``[1, tokens, hidden_size]``.

    Keys and values are not repeated per head, as ``FalconAttention`` does for the new decoder.
    """
    kv_heads = _kv_heads(self.config)
    of_group = self.num_heads // kv_heads + 2
    fused = self.query_key_value(hidden_states).unflatten(-1, (kv_heads, of_group, self.head_dim))
    query = fused[..., :-2, :].flatten(2, 3).transpose(1, 2)
    key, value = (fused[..., place, :].transpose(1, 2) for place in (-2, -1))
    query, key = apply_rotary_pos_emb(query, key, *position_embeddings)
    attend = AttentionInterface()[self.config._attn_implementation]
    attended, _weights = attend(self, query, key, value, attention_mask)
    return self.dense(attended.flatten(2)), None


def _by_rotation(config: PretrainedConfig) -> bool:
    return not config.alibi


def _by_alibi(config: PretrainedConfig) -> bool:
    return bool(config.alibi)


FALCON = Family(
    name="falcon",
    models="Falcon 7B, 40B, 180B, Falcon 2",
    architectures=("FalconForCausalLM",),
    blocks="transformer.h",
    head_output="self_attention.dense",
    values="self_attention.query_key_value",
    select_values=fused_by_group,
    neuron_output="mlp.dense_4h_to_h",
    mlp="mlp",
    final_norm="transformer.ln_f",
    norm="layer",
    kv_heads=_kv_heads,
    attention_forward=_attend,
    applies=_by_rotation,
)

FALCON_RW = replace(FALCON, name="falcon-rw", models="Falcon RW", attention_forward=None, applies=_by_alibi)
