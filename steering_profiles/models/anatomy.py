"""Where the parts of a model are: heads, neurons, final layer, final norm and unembedding.

Each architecture family says so in one small file of ``models/families``; everything else in this project
works on the :class:`Anatomy` found there and knows no architecture by name.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from steering_profiles.errors import UnknownArchitecture


@dataclass(frozen=True)
class Sizes:
    """The counts and widths of a model's parts."""

    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    neurons: int
    width: int
    vocab_size: int


@dataclass(frozen=True)
class Family:
    """One architecture family, told by the names of its modules.

    Paths are relative to the model (``blocks``, ``final_norm``, ``unembedding``) or to one block (the others).
    """

    name: str
    architectures: tuple[str, ...]
    """Names of the transformers classes that this description is true of."""
    blocks: str
    """The list of decoder blocks."""
    head_output: str
    """The attention output projection; its input is the heads' outputs ``z``, ``[..., heads * head_dim]``."""
    values: str
    """The projection that computes value vectors, alone or fused with queries and keys."""
    select_values: Callable[[Tensor, Sizes], Tensor]
    """Pick the value vectors ``[..., kv_heads * head_dim]`` out of that projection's output."""
    neuron_output: str
    """The down projection; its input is the neurons' activations ``m``, ``[..., neurons]``."""
    mlp: str
    """The module whose output is added to the stream."""
    final_norm: str
    unembedding: str


@dataclass(frozen=True)
class LayerAnatomy:
    """The modules of one decoder block that steering and fitting touch."""

    block: nn.Module
    head_output: nn.Module
    values: nn.Module
    neuron_output: nn.Module
    mlp: nn.Module


@dataclass(frozen=True)
class Anatomy:
    """Where the parts of one loaded model are."""

    family: Family
    sizes: Sizes
    layers: tuple[LayerAnatomy, ...]
    final_norm: nn.Module
    unembedding: nn.Module

    @property
    def final_layer(self) -> LayerAnatomy:
        """The last decoder block."""
        return self.layers[-1]

    def own_values(self, projected: Tensor) -> Tensor:
        """Turn the output of a layer's ``values`` module into one value vector per query head.

        ``projected`` is ``[..., features]``; the result ``[..., heads * head_dim]``, each key-value head's vector
        repeated over the query heads of its group.
        """
        sizes = self.sizes
        values = self.family.select_values(projected, sizes).unflatten(-1, (sizes.kv_heads, sizes.head_dim))
        repeated: Tensor = values.repeat_interleave(sizes.heads // sizes.kv_heads, dim=-2).flatten(-2)
        return repeated

    def head_output_weight(self, layer: int) -> Tensor:
        """Return ``W_O`` of every head of ``layer``: ``[heads, head_dim, width]``, so that ``a = z @ W_O``."""
        weight = input_major(self.layers[layer].head_output)
        return weight.view(self.sizes.heads, self.sizes.head_dim, self.sizes.width)

    def neuron_output_weight(self, layer: int) -> Tensor:
        """Return what each neuron of ``layer`` writes to the stream per unit of activation: ``[neurons, width]``."""
        return input_major(self.layers[layer].neuron_output)

    def unembedding_weight(self) -> Tensor:
        """Return ``W_U`` with the final norm's gain folded in and its rows centred over the vocabulary.

        ``[width, vocab_size]`` in float32: the logit lens of RASteer (arXiv:2507.00322), section on projection.
        """
        weight = input_major(self.unembedding).float()
        gain = self.final_norm.weight
        if not isinstance(gain, Tensor):
            raise TypeError(f"final norm of family {self.family.name} has no gain")
        weight = weight * gain.float().unsqueeze(-1)
        return weight - weight.mean(dim=-1, keepdim=True)


def input_major(projection: nn.Module) -> Tensor:
    """Return the weight of a linear module as ``[in, out]``, whichever way round the module keeps it."""
    weight = projection.weight
    if not isinstance(weight, Tensor):
        raise TypeError(f"{type(projection).__name__} has no weight matrix")
    return weight if isinstance(projection, Conv1D) else weight.T


def find_anatomy(model: PreTrainedModel, families: tuple[Family, ...]) -> Anatomy:
    """Return the anatomy of ``model`` by the description that names its class.

    Raises:
        UnknownArchitecture: no description does; the message lists the known architectures.
    """
    architecture = type(model).__name__
    family = family_of(architecture, families)
    blocks = model.get_submodule(family.blocks)
    if not isinstance(blocks, nn.ModuleList) or not blocks:
        raise UnknownArchitecture(f"{architecture}: {family.blocks} is not a list of blocks, or an empty one")
    layers = tuple(
        LayerAnatomy(
            block=block,
            head_output=block.get_submodule(family.head_output),
            values=block.get_submodule(family.values),
            neuron_output=block.get_submodule(family.neuron_output),
            mlp=block.get_submodule(family.mlp),
        )
        for block in blocks
    )
    config = model.config
    heads = config.num_attention_heads
    sizes = Sizes(
        layers=len(layers),
        heads=heads,
        kv_heads=getattr(config, "num_key_value_heads", None) or heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
        neurons=_features(layers[0].neuron_output)[0],
        width=config.hidden_size,
        vocab_size=_features(model.get_submodule(family.unembedding))[1],
    )
    return Anatomy(
        family=family,
        sizes=sizes,
        layers=layers,
        final_norm=model.get_submodule(family.final_norm),
        unembedding=model.get_submodule(family.unembedding),
    )


def family_of(architecture: str, families: tuple[Family, ...]) -> Family:
    """Return the description that names the transformers class ``architecture``.

    Raises:
        UnknownArchitecture: none does.
    """
    for family in families:
        if architecture in family.architectures:
            return family
    known = ", ".join(sorted(name for family in families for name in family.architectures))
    raise UnknownArchitecture(f"architecture {architecture} is not known to steering-server; known: {known}")


def _features(projection: nn.Module) -> torch.Size:
    return input_major(projection).shape
