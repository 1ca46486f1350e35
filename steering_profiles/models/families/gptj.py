"""GPT-J: parallel residual, one layer norm for attention and MLP, a bias on the unembedding."""

from steering_profiles.models.anatomy import Family
from steering_profiles.models.values import alone

GPTJ = Family(
    name="gptj",
    models="GPT-J",
    architectures=("GPTJForCausalLM",),
    blocks="transformer.h",
    head_output="attn.out_proj",
    values="attn.v_proj",
    select_values=alone,
    neuron_output="mlp.fc_out",
    mlp="mlp",
    final_norm="transformer.ln_f",
    norm="layer",
)
