"""OPT: MLP without a module of its own, biases, learned positions; the 350M has norms on the residual stream."""

from dataclasses import replace

from transformers import PretrainedConfig

from steering_profiles.models.anatomy import Family
from steering_profiles.models.values import separate


def _norms_come_first(config: PretrainedConfig) -> bool:
    return bool(config.do_layer_norm_before)


def _norms_come_last(config: PretrainedConfig) -> bool:
    return not config.do_layer_norm_before


OPT = Family(
    name="opt",
    models="OPT, Galactica",
    architectures=("OPTForCausalLM",),
    blocks="model.decoder.layers",
    head_output="self_attn.out_proj",
    values="self_attn.v_proj",
    select_values=separate,
    neuron_output="fc2",
    mlp="fc2",
    final_norm="model.decoder.final_layer_norm",
    norm="layer",
    project_out="model.decoder.project_out",
    applies=_norms_come_first,
)

OPT_POST_NORM = replace(
    OPT,
    name="opt-post-norm",
    models="OPT-350m",
    final_norm=None,
    attention_norm="self_attn_layer_norm",
    mlp_norm="final_layer_norm",
    norms_on_residual_stream=True,
    applies=_norms_come_last,
)
