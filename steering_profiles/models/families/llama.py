"""Llama and models of the same structure: separate projections, gated MLP, RMS norms, grouped-query attention."""

from dataclasses import replace

from steering_profiles.models.anatomy import Family, GatedBlock
from steering_profiles.models.values import separate

LLAMA_LIKE = Family(
    name="llama-like",
    models="",
    architectures=(),
    blocks="model.layers",
    head_output="self_attn.o_proj",
    values="self_attn.v_proj",
    select_values=separate,
    neuron_output="mlp.down_proj",
    mlp="mlp",
    final_norm="model.norm",
    norm="rms",
)
"""Description that all families built like Llama share; each adds the rest of its blocks."""

LLAMA = replace(
    LLAMA_LIKE,
    name="llama",
    models="Llama 2 and 3, CodeLlama, SmolLM, SmolLM2, Yi, TinyLlama",
    architectures=("LlamaForCausalLM",),
    gated_block=GatedBlock(),
)
