"""Anatomy of a model: the modules of its heads, neurons, final layer, final norm and unembedding.

Each architecture family is described in a small file of ``models/families``. All other code works on the
:class:`Anatomy` that is built from it and knows no architecture by name.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from steering_profiles.errors import ModelError, UnknownArchitecture
from steering_profiles.models.norms import Norm, NormKind
from steering_profiles.models.projections import effective_weight, features, is_computed_in
from steering_profiles.schema import Profile


@dataclass(frozen=True)
class Sizes:
    """Sizes of a model."""

    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    neurons: int
    hidden_size: int
    vocab_size: int


def _kv_heads(config: PretrainedConfig) -> int:
    return int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)


def _always(config: PretrainedConfig) -> bool:
    return True


def _unscaled(config: PretrainedConfig) -> float:
    return 1.0


@dataclass(frozen=True)
class Experts:
    """Neurons of a mixture of experts, of which only the number is known."""

    neurons: Callable[[PretrainedConfig], int]
    """Number of neurons in a layer, over all experts."""
    refused: str
    """Reason why they cannot be scaled, to follow the name of the family."""


def _no_window(attention: Any) -> int | None:
    return None


@dataclass(frozen=True)
class GatedBlock:
    """A block of the most common kind, whose operators an engine may fuse.

    Two RMS norms, one before attention and one before the MLP; separate projections for queries, keys and values,
    rotated by halves; an MLP of ``down(silu(gate) * up)``; nothing else. Paths are relative to one block, but for the
    first two, which are relative to the model.
    """

    embedding: str = "model.embed_tokens"
    rotary: str = "model.rotary_emb"
    attention_norm: str = "input_layernorm"
    query: str = "self_attn.q_proj"
    key: str = "self_attn.k_proj"
    value: str = "self_attn.v_proj"
    query_norm: str | None = None
    """An RMS norm of each head's query, before the rotation."""
    key_norm: str | None = None
    mlp_norm: str = "post_attention_layernorm"
    gate: str = "mlp.gate_proj"
    up: str = "mlp.up_proj"
    window: Callable[[Any], int | None] = _no_window
    """Sliding window of an attention module, in tokens; None where it sees all."""


@dataclass(frozen=True)
class Family:
    """Description of an architecture family by the paths of its modules.

    Paths are relative to the model (``blocks``, ``final_norm``, ``project_out``) or to one block (all others).
    """

    name: str
    models: str
    """Models of this family, for display."""
    architectures: tuple[str, ...]
    """Names of the transformers classes that have this structure."""
    blocks: str
    """List of decoder blocks."""
    head_output: str
    """Attention output projection; its input is the heads' outputs ``z``, ``[..., heads * head_dim]``."""
    values: str
    """Projection that computes value vectors, separate or fused with queries and keys."""
    select_values: Callable[[Tensor, Sizes], Tensor]
    """Select the value vectors, ``[..., kv_heads * head_dim]``, from that projection's output (``models/values``)."""
    neuron_output: str | Experts
    """Down projection; its input is the neurons' activations ``m``, ``[..., neurons]``."""
    mlp: str
    """Module whose output is the output of the MLP."""
    final_norm: str | None
    """None if the blocks end in norms on the residual stream."""
    norm: NormKind
    """Kind of all norms of the family."""
    project_out: str | None = None
    """Projection between the final norm and the unembedding, if the model has one."""
    attention_norm: str | None = None
    """Norm after the attention output projection, if there is one."""
    mlp_norm: str | None = None
    """Norm after the MLP, if there is one."""
    norms_on_residual_stream: bool = False
    """Whether these two norms come after the addition and so apply to the whole residual stream."""
    residual_multiplier: Callable[[PretrainedConfig], float] = _unscaled
    """Factor of the outputs of attention and MLP when they are added to the residual stream."""
    kv_heads: Callable[[PretrainedConfig], int] = _kv_heads
    attention_forward: Callable[..., tuple[Tensor, None]] | None = None
    """For models that do not use transformers' attention interface: a ``forward`` of their attention modules that does,
    so that an engine can register its own attention."""
    gated_block: GatedBlock | None = None
    """Structure of its blocks, if they are of that kind."""
    applies: Callable[[PretrainedConfig], bool] = _always
    """Whether a model of these architectures with this config has this structure."""


@dataclass(frozen=True, eq=False)
class Joining:
    """Path of the output of attention or MLP into the residual stream."""

    norm: Norm | None
    on_residual_stream: bool
    """Whether the norm comes after the addition and so applies to the whole residual stream."""
    multiplier: float

    def fold(self, outputs: Tensor) -> Tensor:
        """Return what parts of the output, ``[..., hidden_size]``, add to the stream, without the norm's scale."""
        scaled = outputs * self.multiplier if self.multiplier != 1 else outputs
        return scaled if self.norm is None else self.norm.linear(scaled)


@dataclass(frozen=True, eq=False)
class LayerAnatomy:
    """Modules of a decoder block that steering and fitting use."""

    block: nn.Module
    head_output: nn.Module
    values: nn.Module
    neuron_output: nn.Module | None
    """None in a mixture of experts."""
    mlp: nn.Module
    """Module whose output, times ``mlp_joining.multiplier``, is added to the residual stream."""
    head_joining: Joining
    mlp_joining: Joining


@dataclass(frozen=True, eq=False)
class Anatomy:
    """Modules of one model by their function."""

    family: Family
    sizes: Sizes
    layers: tuple[LayerAnatomy, ...]
    final_norm: nn.Module | None
    """None if the blocks end in norms on the residual stream."""
    unembedding: nn.Module
    project_out: nn.Module | None

    def attention(self, layer: int) -> nn.Module:
        """Return the attention module of ``layer``: the owner of the attention output projection."""
        return self.layers[layer].block.get_submodule(self.family.head_output.rpartition(".")[0])

    @property
    def final_layer(self) -> LayerAnatomy:
        """Last decoder block."""
        return self.layers[-1]

    @property
    def neurons_refused(self) -> str | None:
        """Reason why this model's neurons cannot be scaled; None if they can."""
        experts = self.family.neuron_output
        return f"{self.family.name} {experts.refused}" if isinstance(experts, Experts) else None

    def neuron_output(self, layer: int) -> nn.Module:
        """Return the down projection of ``layer``.

        Raises:
            ModelError: the neurons cannot be scaled.
        """
        module = self.layers[layer].neuron_output
        if module is None:
            raise ModelError(self._no_neurons)
        return module

    def refuses(self, profile: Profile) -> str | None:
        """Return the reason why ``profile`` cannot be applied to a model of this family, or None if it can."""
        if profile.neurons and self.neurons_refused is not None:
            return f"neurons: this model's neurons cannot be scaled: {self.neurons_refused}"
        return None

    def require_neurons(self) -> None:
        """Check that this model's neurons can be scaled.

        Raises:
            ModelError: they cannot; the message has the reason.
        """
        if self.neurons_refused is not None:
            raise ModelError(self._no_neurons)

    @property
    def _no_neurons(self) -> str:
        return f"neurons cannot be scaled: {self.neurons_refused}; attention heads can"

    def values_per_head(self, projected: Tensor) -> Tensor:
        """Return one value vector per query head from the output of a layer's ``values`` module.

        ``projected`` is ``[..., features]``, the result ``[..., heads * head_dim]``: the vector of each key-value head
        is repeated for the query heads of its group.
        """
        sizes = self.sizes
        values = self.family.select_values(projected, sizes).unflatten(-1, (sizes.kv_heads, sizes.head_dim))
        repeated: Tensor = values.repeat_interleave(sizes.heads // sizes.kv_heads, dim=-2).flatten(-2)
        return repeated

    def head_output_weight(self, layer: int) -> Tensor:
        """Return the matrices ``W``, ``[heads, head_dim, hidden_size]``, by which heads write ``z @ W`` to the stream.

        This is ``W_O`` with all linear steps between it and the residual stream folded in: a multiplier and the gain
        of a norm after it. The scale of that norm depends on the input: see
        :class:`steering_profiles.models.LayerState`.
        """
        sizes = self.sizes
        weight = self.layers[layer].head_joining.fold(self._weight(self.layers[layer].head_output))
        return weight.reshape(sizes.heads, sizes.head_dim, sizes.hidden_size)

    def neuron_output_weight(self, layer: int) -> Tensor:
        """Return what each neuron writes to the residual stream per unit of activation: ``[neurons, hidden_size]``.

        As in :meth:`head_output_weight`, the scale of a norm after it is not included.

        Raises:
            ModelError: the neurons cannot be scaled, and so have no weights of their own.
        """
        return self.layers[layer].mlp_joining.fold(self._weight(self.neuron_output(layer)))

    def unembedding_weight(self) -> Tensor:
        """Return ``W_U`` with the final norm's gain folded in and its rows centred over the vocabulary.

        ``[hidden_size, vocab_size]`` in float32: the logit lens of RASteer (arXiv:2507.00322), section on projection.
        Left out are the norm's scale, a division and a soft cap of the logits, which do not change the order of the
        tokens, and the unembedding's bias, which belongs to no component.
        """
        weight = self._weight(self.unembedding).float()
        if self.project_out is not None:
            weight = self._weight(self.project_out).to(weight) @ weight
        if self.final_norm is not None:
            gain = Norm(self.final_norm, self.family.norm, self.sizes.hidden_size).gain
            weight = weight * gain.to(weight).unsqueeze(-1)
        return weight - weight.mean(dim=-1, keepdim=True)

    def _weight(self, projection: nn.Module) -> Tensor:
        return effective_weight(projection, self._dtype)

    @property
    def _dtype(self) -> torch.dtype:
        """Dtype that the model computes in, which differs from that of quantised weights."""
        modules = (self.unembedding, *(layer.block for layer in self.layers))
        every = (parameter.dtype for module in modules for parameter in module.parameters())
        return next(filter(is_computed_in, every), torch.get_default_dtype())


def find_anatomy(model: PreTrainedModel, families: tuple[Family, ...]) -> Anatomy:
    """Return the anatomy of ``model``, by the family that has its class.

    Raises:
        UnknownArchitecture: no family has it; the message lists the known architectures.
    """
    architecture = type(model).__name__
    family = family_of(architecture, model.config, families)
    config = model.config.get_text_config()
    blocks = model.get_submodule(family.blocks)
    if not isinstance(blocks, nn.ModuleList) or not blocks:
        raise UnknownArchitecture(f"{architecture}: {family.blocks} is not a list of blocks, or is empty")
    hidden_size = config.hidden_size
    layers = tuple(_layer(block, family, hidden_size, family.residual_multiplier(config)) for block in blocks)
    heads = config.num_attention_heads
    unembedding: nn.Module = model.get_output_embeddings()
    sizes = Sizes(
        layers=len(layers),
        heads=heads,
        kv_heads=family.kv_heads(config),
        head_dim=getattr(config, "head_dim", None) or hidden_size // heads,
        neurons=_neurons(family, config, layers[0]),
        hidden_size=hidden_size,
        vocab_size=features(unembedding)[1],
    )
    return Anatomy(
        family=family,
        sizes=sizes,
        layers=layers,
        final_norm=_optional(model, family.final_norm),
        unembedding=unembedding,
        project_out=_optional(model, family.project_out),
    )


def family_of(architecture: str, config: PretrainedConfig, families: tuple[Family, ...]) -> Family:
    """Return the family that has the transformers class ``architecture``.

    Raises:
        UnknownArchitecture: no family has it.
    """
    for family in families:
        if architecture in family.architectures and family.applies(config):
            return family
    known = ", ".join(sorted({name for family in families for name in family.architectures}))
    raise UnknownArchitecture(f"architecture {architecture} is not known to steering-server; known: {known}")


def _layer(block: nn.Module, family: Family, hidden_size: int, multiplier: float) -> LayerAnatomy:
    attention_norm = _norm(block, family.attention_norm, family, hidden_size)
    mlp_norm = _norm(block, family.mlp_norm, family, hidden_size)
    ends_in_norm = mlp_norm is not None and not family.norms_on_residual_stream
    return LayerAnatomy(
        block=block,
        head_output=block.get_submodule(family.head_output),
        values=block.get_submodule(family.values),
        neuron_output=(block.get_submodule(family.neuron_output) if isinstance(family.neuron_output, str) else None),
        mlp=mlp_norm.module if mlp_norm is not None and ends_in_norm else block.get_submodule(family.mlp),
        head_joining=Joining(attention_norm, family.norms_on_residual_stream, multiplier),
        mlp_joining=Joining(mlp_norm, family.norms_on_residual_stream, multiplier),
    )


def _norm(owner: nn.Module, path: str | None, family: Family, hidden_size: int) -> Norm | None:
    module = _optional(owner, path)
    return None if module is None else Norm(module, family.norm, hidden_size)


def _optional(owner: nn.Module, path: str | None) -> nn.Module | None:
    """Return the module at ``path``; None if ``path`` is None, or the model does not have the module."""
    if path is None:
        return None
    parent, _, name = path.rpartition(".")
    return getattr(owner.get_submodule(parent), name)  # type: ignore[no-any-return]


def _neurons(family: Family, config: PretrainedConfig, layer: LayerAnatomy) -> int:
    if isinstance(family.neuron_output, Experts):
        return family.neuron_output.neurons(config)
    return features(layer.neuron_output)[0] if layer.neuron_output is not None else 0
