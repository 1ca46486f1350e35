"""The seconds of a step: whatever takes longest, reading memory or multiplying, and what comes on top."""

from dataclasses import dataclass

from benchmarks.capacity.hardware import (
    BANDWIDTH_SHARE,
    COLLECTIVE_SECONDS,
    HOP_SECONDS,
    KERNEL_SECONDS,
    NETWORK,
    PRODUCTS_SHARE,
    STEP_SECONDS,
    Cpu,
    Gpu,
)
from benchmarks.capacity.shapes import Shape

RESERVED = 0.10
"""Share of a GPU's memory for activations, graphs and libraries; vLLM's default leaves as much."""
KV_BYTES = 2
ACTIVATION_BYTES = 2


@dataclass(frozen=True)
class Layout:
    """How a replica's model is spread: each layer over ``tensor`` GPUs, the layers over ``pipeline`` stages."""

    gpu: Gpu
    tensor: int = 1
    pipeline: int = 1
    weight_bytes: float = 2
    """Bytes per weight: 2 in bfloat16, 1 in FP8."""

    @property
    def gpus(self) -> int:
        """GPUs of a replica."""
        return self.tensor * self.pipeline

    def __str__(self) -> str:
        stages = f" x PP {self.pipeline}" if self.pipeline > 1 else ""
        kind = "" if self.weight_bytes == 2 else ", FP8"
        return f"{self.gpu.name}, TP {self.tensor}{stages}{kind}"


def weights(shape: Shape, layout: Layout) -> float:
    """Return the bytes of weights on the fullest GPU: stages have whole layers, and the ends the vocabulary too."""
    layers = -(-shape.layers // layout.pipeline) * shape.layer_parameters
    ends = shape.parameters - shape.layers * shape.layer_parameters
    return (
        (layers + (ends if layout.pipeline == 1 else shape.unembedding_parameters))
        * layout.weight_bytes
        / layout.tensor
    )


def kv_tokens(shape: Shape, layout: Layout, *, tables: float = 0) -> int:
    """Return how many tokens of keys and values a replica has room for, beside ``tables`` bytes of steering tables.

    Where there are more GPUs than heads of keys and values, each has a copy of one head.
    """
    room = layout.gpu.memory * (1 - RESERVED) - weights(shape, layout) - tables / layout.gpus
    copies = max(1, layout.tensor / shape.kv_heads)
    per_token = shape.kv_bytes_per_token(KV_BYTES) * copies / layout.gpus
    return max(0, int(room / per_token))


def decode_seconds(shape: Shape, layout: Layout, sequences: int, context: int, *, steered: bool = False) -> float:
    """Return the seconds of a step in which each of ``sequences`` gets one token after ``context`` others.

    With a pipeline the sequences are in as many groups as there are stages, so that all stages work: a step of all
    groups takes as long as all stages of one group.
    """
    group = max(1, sequences // layout.pipeline)
    matrices = shape.layers * shape.layer_parameters + shape.unembedding_parameters
    read = matrices * layout.weight_bytes + group * context * shape.kv_bytes_per_token(KV_BYTES)
    if steered:
        read += group * shape.layers * (shape.heads + 3 * shape.heads * shape.head_dim) * ACTIVATION_BYTES
    memory = read / (layout.tensor * layout.gpu.bandwidth * BANDWIDTH_SHARE)
    products = group * matrices / (layout.tensor * layout.gpu.products * PRODUCTS_SHARE)
    # Two kernels in every layer: one that gathers factors, one that multiplies.
    kernels = 2 * shape.layers * KERNEL_SECONDS if steered else 0
    return max(memory, products) + kernels + _exchange_seconds(shape, layout, group) + STEP_SECONDS


def prefill_seconds(shape: Shape, layout: Layout, tokens: int) -> float:
    """Return the seconds in which a prompt's ``tokens`` are computed, by products alone."""
    matrices = shape.layers * shape.layer_parameters
    attention = shape.layers * shape.heads * shape.head_dim * tokens**2
    seconds = (tokens * matrices + attention) / (layout.tensor * layout.gpu.products * PRODUCTS_SHARE)
    return seconds + _exchange_seconds(shape, layout, tokens)


def _exchange_seconds(shape: Shape, layout: Layout, rows: int) -> float:
    """Return what a pass of ``rows`` tokens takes to sum over GPUs, twice a layer, and to go on to later stages."""
    activations = rows * shape.hidden_size * ACTIVATION_BYTES
    total = 0.0
    if layout.tensor > 1:
        sent = 2 * (layout.tensor - 1) / layout.tensor * activations / layout.gpu.link
        total += 2 * shape.layers * (COLLECTIVE_SECONDS + sent)
    return total + (layout.pipeline - 1) * (HOP_SECONDS + activations / NETWORK)


OPERATORS_PER_LAYER = 10
"""Operators of a layer in this project's engine on CPUs: norms, products, rotation, attention, activation, sums."""


def cpu_seconds(shape: Shape, cpu: Cpu, rows: int, sequences: int, context: int) -> float:
    """Return the seconds of a step of ``rows`` tokens of ``sequences``, on a CPU in float32.

    The products include reading the weights. Besides, keys and values are read, and activations are read and written by
    every operator: ten times the hidden size and four times that of the MLP, in a layer, and the logits twice.
    """
    matrices = shape.layers * shape.layer_parameters
    products = cpu.product_seconds(rows, matrices) + cpu.product_seconds(sequences, shape.unembedding_parameters)
    kept = sequences * context * shape.kv_bytes_per_token(4)
    passed = 4 * rows * shape.layers * (10 * shape.hidden_size + 4 * shape.intermediate_size)
    logits = 4 * sequences * 2 * shape.vocabulary
    read = (kept + passed + logits) / cpu.bandwidth
    return products + read + shape.layers * OPERATORS_PER_LAYER * cpu.operator_seconds


def cpu_tokens_per_second(shape: Shape, cpu: Cpu, sequences: int, prompt: int, new: int) -> float:
    """Return the throughput of a batch that comes at once: ``prompt`` tokens each, and then ``new`` ones."""
    seconds = cpu_seconds(shape, cpu, sequences * prompt, sequences, prompt)
    for step in range(1, new):
        seconds += cpu_seconds(shape, cpu, sequences, sequences, prompt + step)
    return sequences * new / seconds
