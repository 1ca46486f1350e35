"""GPT-2: fused query-key-value projection, plain MLP, layer norms, learned positions."""

from torch import Tensor

from steering_profiles.models.anatomy import Family, Sizes


def _select_values(projected: Tensor, sizes: Sizes) -> Tensor:
    return projected[..., 2 * sizes.width :]  # queries, keys, values, one after the other


GPT2 = Family(
    name="gpt2",
    architectures=("GPT2LMHeadModel",),
    blocks="transformer.h",
    head_output="attn.c_proj",
    values="attn.c_attn",
    select_values=_select_values,
    neuron_output="mlp.c_proj",
    mlp="mlp",
    final_norm="transformer.ln_f",
    unembedding="lm_head",
)
