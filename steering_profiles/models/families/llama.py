"""Llama and models of the same structure: separate projections, gated MLP, RMS norms, grouped-query attention."""

from steering_profiles.models.anatomy import Family
from steering_profiles.models.values import separate

LLAMA = Family(
    name="llama",
    models="Llama 2 and 3, CodeLlama, SmolLM, SmolLM2, Yi, TinyLlama",
    architectures=("LlamaForCausalLM",),
    blocks="model.layers",
    head_output="self_attn.o_proj",
    values="self_attn.v_proj",
    select_values=separate,
    neuron_output="mlp.down_proj",
    mlp="mlp",
    final_norm="model.norm",
    norm="rms",
)
