"""GPT-NeoX and Pythia: parallel residual, layer norms, queries, keys and values of a head side by side."""

from steering_profiles.models.anatomy import Family
from steering_profiles.models.values import fused_by_group

GPT_NEOX = Family(
    name="gpt-neox",
    models="Pythia, GPT-NeoX",
    architectures=("GPTNeoXForCausalLM",),
    blocks="gpt_neox.layers",
    head_output="attention.dense",
    values="attention.query_key_value",
    select_values=fused_by_group,
    neuron_output="mlp.dense_4h_to_h",
    mlp="mlp",
    final_norm="gpt_neox.final_layer_norm",
    norm="layer",
)
