"""StarCoder2: plain MLP, layer norms, biases, sliding window."""

from dataclasses import replace

from steering_profiles.models.families.llama import LLAMA_LIKE

STARCODER2 = replace(
    LLAMA_LIKE,
    name="starcoder2",
    models="StarCoder2",
    architectures=("Starcoder2ForCausalLM",),
    neuron_output="mlp.c_proj",
    norm="layer",
)
