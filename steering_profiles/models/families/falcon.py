"""Falcon: parallel residual, layer norms, one key-value head (7B), a few (40B, 180B, Falcon 2) or all (RW)."""

from transformers import PretrainedConfig

from steering_profiles.models.anatomy import Family
from steering_profiles.models.values import fused_by_group


def _kv_heads(config: PretrainedConfig) -> int:
    if config.new_decoder_architecture:
        return int(config.num_kv_heads)
    return 1 if config.multi_query else int(config.num_attention_heads)


FALCON = Family(
    name="falcon",
    models="Falcon 7B, 40B, 180B, Falcon 2, Falcon RW",
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
)
