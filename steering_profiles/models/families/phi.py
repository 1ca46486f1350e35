"""Phi: parallel residual, one layer norm for attention and MLP, biases everywhere."""

from steering_profiles.models.anatomy import Family
from steering_profiles.models.values import separate

PHI = Family(
    name="phi",
    models="Phi-1, Phi-1.5, Phi-2",
    architectures=("PhiForCausalLM",),
    blocks="model.layers",
    head_output="self_attn.dense",
    values="self_attn.v_proj",
    select_values=separate,
    neuron_output="mlp.fc2",
    mlp="mlp",
    final_norm="model.final_layernorm",
    norm="layer",
)
