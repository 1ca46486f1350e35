"""StarCoder2: plain MLP, layer norms, biases, sliding window."""

from dataclasses import replace

from steering_profiles.models.families.llama import LLAMA

STARCODER2 = replace(
    LLAMA,
    name="starcoder2",
    models="StarCoder2",
    architectures=("Starcoder2ForCausalLM",),
    neuron_output="mlp.c_proj",
    norm="layer",
)
