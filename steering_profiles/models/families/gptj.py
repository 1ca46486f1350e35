"""GPT-J: parallel residual, one layer norm for attention and MLP, a bias on the unembedding."""

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.models.gptj.modeling_gptj import apply_rotary_pos_emb

from steering_profiles.models.anatomy import Family
from steering_profiles.models.values import separate


def _attend(
    self: Any, hidden_states: Tensor, *, position_ids: Tensor, attention_mask: Tensor | None = None, **_: Any
) -> tuple[Tensor, None]:
    """Compute ``GPTJAttention`` without a cache, on ``[1, tokens, hidden_size]``. Scores are computed in float32."""
    query, key, value = (
        projection(hidden_states).unflatten(-1, (self.num_attention_heads, self.head_dim))
        for projection in (self.q_proj, self.k_proj, self.v_proj)
    )
    sin, cos = self.embed_positions.to(position_ids.device)[position_ids].to(key.dtype).chunk(2, dim=-1)
    rotary = self.rotary_dim or self.head_dim

    def rotated(vectors: Tensor) -> Tensor:
        turned = apply_rotary_pos_emb(vectors[..., :rotary], sin, cos)
        return torch.cat([turned, vectors[..., rotary:]], dim=-1).transpose(1, 2)

    attend = AttentionInterface()[self.config._attn_implementation]
    attended, _weights = attend(self, rotated(query), rotated(key), value.transpose(1, 2), attention_mask)
    return self.out_proj(attended.flatten(2)), None


GPTJ = Family(
    name="gptj",
    models="GPT-J",
    architectures=("GPTJForCausalLM",),
    blocks="transformer.h",
    head_output="attn.out_proj",
    values="attn.v_proj",
    select_values=separate,
    neuron_output="mlp.fc_out",
    mlp="mlp",
    final_norm="transformer.ln_f",
    norm="layer",
    attention_forward=_attend,
)
