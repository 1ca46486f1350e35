"""Llama 2 and 3, CodeLlama, SmolLM and SmolLM2: separate projections, gated MLP, RMS norms, grouped-query attention."""

from torch import Tensor

from steering_profiles.models.anatomy import Family, Sizes


def _select_values(projected: Tensor, sizes: Sizes) -> Tensor:
    return projected


LLAMA = Family(
    name="llama",
    architectures=("LlamaForCausalLM",),
    blocks="model.layers",
    head_output="self_attn.o_proj",
    values="self_attn.v_proj",
    select_values=_select_values,
    neuron_output="mlp.down_proj",
    mlp="mlp",
    final_norm="model.norm",
    unembedding="lm_head",
)
