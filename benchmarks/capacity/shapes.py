"""Sizes of models, from their published configurations, and what follows from them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """A dense decoder with grouped-query attention and a gated MLP."""

    name: str
    layers: int
    hidden_size: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate_size: int
    vocabulary: int
    tied: bool = False
    """Whether one matrix embeds tokens and makes logits."""

    @property
    def layer_parameters(self) -> int:
        """Weights of one layer's matrices."""
        attention = self.hidden_size * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        return attention + 3 * self.hidden_size * self.intermediate_size

    @property
    def unembedding_parameters(self) -> int:
        """Weights of the matrix that makes logits."""
        return self.hidden_size * self.vocabulary

    @property
    def parameters(self) -> int:
        """Weights of all matrices; norms and biases are left out, a thousandth at most."""
        return self.layers * self.layer_parameters + self.unembedding_parameters * (1 if self.tied else 2)

    def kv_bytes_per_token(self, element_bytes: float) -> float:
        """Bytes of keys and values of one token in all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim * element_bytes

    def table_bytes(self, sequences: int, *, neurons: bool, element_bytes: int = 2) -> int:
        """Bytes of all steering tables, if profiles change heads, and ``neurons`` too, in every layer.

        There is a row for each of ``sequences`` that can run, one that changes nothing and one for the canary. The
        final layer's two effects are counted.
        """
        width = self.layers * (self.heads + (self.intermediate_size if neurons else 0)) + 1 + self.hidden_size
        return (sequences + 2) * width * element_bytes


SMOLLM2_135M = Shape("SmolLM2-135M", 30, 576, 9, 3, 64, 1536, 49152, tied=True)
QWEN25_7B = Shape("Qwen2.5-7B", 28, 3584, 28, 4, 128, 18944, 152064)
LLAMA33_70B = Shape("Llama-3.3-70B", 80, 8192, 64, 8, 128, 28672, 128256)
LLAMA31_405B = Shape("Llama-3.1-405B", 126, 16384, 128, 8, 128, 53248, 128256)
"""From the ``config.json`` of each."""
