"""GPT-2: fused query-key-value projection, plain MLP, layer norms, learned positions."""

from steering_profiles.models.anatomy import Family
from steering_profiles.models.values import fused_last

GPT2 = Family(
    name="gpt2",
    models="GPT-2, DistilGPT-2",
    architectures=("GPT2LMHeadModel",),
    blocks="transformer.h",
    head_output="attn.c_proj",
    values="attn.c_attn",
    select_values=fused_last,
    neuron_output="mlp.c_proj",
    mlp="mlp",
    final_norm="transformer.ln_f",
    norm="layer",
)
