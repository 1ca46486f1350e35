"""Contributions of the parts of a layer to the residual stream in a forward pass.

The contribution of a component is what reaches the residual stream. Where a block normalises the output of attention
or MLP, the contribution includes that norm's gain and its scale on that input; it also includes a multiplier. Where
the norm comes after the addition, as in OPT-350m, the contribution is measured after that norm.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from steering_profiles.models.anatomy import Anatomy, Joining, LayerAnatomy

Keep = Callable[[Tensor], Tensor]
"""Selection of positions: ``[batch, seq, features]`` to ``[..., features]``."""


@dataclass(eq=False)
class LayerState:
    """Copies of one layer's activations at the selected positions."""

    residual_stream: Tensor
    """Residual stream before the layer's attention, ``[..., hidden_size]``."""
    z: Tensor
    """Outputs of the heads, ``[..., heads * head_dim]``."""
    m: Tensor | None
    """Activations of the neurons, ``[..., neurons]``; None in a mixture of experts."""
    mlp: Tensor
    """Contribution of the MLP to the residual stream, with its bias, ``[..., hidden_size]``."""
    head_scale: Tensor
    """Scale of the norm after the heads, ``[..., 1]``, float64; 1 if there is no norm."""
    mlp_scale: Tensor
    """Scale of the norm after the MLP, ``[..., 1]``, float64; 1 if there is no norm."""


def last_position(sequences: Tensor) -> Tensor:
    """Select the last position: ``[batch, seq, features]`` to ``[batch, features]``."""
    return sequences[:, -1]


def head_contributions(anatomy: Anatomy, layer: int, state: LayerState) -> Tensor:
    """Return the contribution of each head of ``layer`` to the residual stream: ``[..., heads, hidden_size]``, float64.

    The bias of the output projection is not included, because it belongs to no head.
    """
    sizes = anatomy.sizes
    z = state.z.double().unflatten(-1, (sizes.heads, sizes.head_dim))
    weight = anatomy.head_output_weight(layer).to(z)
    written: Tensor = torch.einsum("...hk,hkd->...hd", z, weight)
    return written * state.head_scale.unsqueeze(-1)


@contextmanager
def recorded(anatomy: Anatomy, layers: Iterable[int], keep: Keep = last_position) -> Iterator[dict[int, LayerState]]:
    """Record the activations of ``layers`` in the forward passes inside this context.

    The returned dictionary has a :class:`LayerState` per layer, of the last completed pass.
    """
    states: dict[int, LayerState] = {}
    handles: list[RemovableHandle] = []
    try:
        for layer in layers:
            _Recorder(anatomy.layers[layer], keep, partial(states.__setitem__, layer)).attach(handles)
        yield states
    finally:
        for handle in handles:
            handle.remove()


class _Recorder:
    """Hooks that collect the :class:`LayerState` of one layer."""

    def __init__(self, layer: LayerAnatomy, keep: Keep, finish: Callable[[LayerState], None]) -> None:
        self._layer = layer
        self._keep = keep
        self._finish = finish
        self._batch = 0
        self._kept: dict[str, Tensor] = {}

    def attach(self, handles: list[RemovableHandle]) -> None:
        layer = self._layer
        handles.append(layer.block.register_forward_pre_hook(self._enter, with_kwargs=True))
        handles.append(layer.head_output.register_forward_pre_hook(self._input("z")))
        if layer.neuron_output is not None:
            handles.append(layer.neuron_output.register_forward_pre_hook(self._input("m")))
        handles.append(layer.mlp.register_forward_hook(self._output("mlp")))
        for name, joining in (("head_scale", layer.head_joining), ("mlp_scale", layer.mlp_joining)):
            if joining.norm is not None:
                handles.append(joining.norm.module.register_forward_pre_hook(self._input(name)))
        handles.append(layer.block.register_forward_hook(self._leave))

    def _enter(self, module: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        residual_stream: Tensor = args[0] if args else kwargs["hidden_states"]
        self._batch = residual_stream.shape[0]
        self._kept = {"residual_stream": self._pick(residual_stream)}

    def _input(self, name: str) -> Callable[..., None]:
        def hook(module: object, args: tuple[Tensor, ...]) -> None:
            self._kept[name] = self._pick(args[0])

        return hook

    def _output(self, name: str) -> Callable[..., None]:
        def hook(module: object, args: object, output: Tensor) -> None:
            self._kept[name] = self._pick(output)

        return hook

    def _pick(self, values: Tensor) -> Tensor:
        # Some blocks flatten the batch for the MLP, and some add to their outputs in place.
        return self._keep(values.reshape(self._batch, -1, values.shape[-1])).clone()

    def _leave(self, module: object, args: object, output: object) -> None:
        kept, layer = self._kept, self._layer
        head_scale = _scale(layer.head_joining, kept.get("head_scale"), kept["residual_stream"])
        mlp_scale = _scale(layer.mlp_joining, kept.get("mlp_scale"), kept["residual_stream"])
        self._finish(
            LayerState(
                residual_stream=kept["residual_stream"],
                z=kept["z"],
                m=kept.get("m"),
                mlp=_joined(layer.mlp_joining, kept["mlp"], mlp_scale),
                head_scale=head_scale,
                mlp_scale=mlp_scale,
            )
        )


def _scale(joining: Joining, inputs: Tensor | None, like: Tensor) -> Tensor:
    if joining.norm is None or inputs is None:
        return torch.ones(*like.shape[:-1], 1, dtype=torch.float64, device=like.device)
    return joining.norm.scale(inputs)


def _joined(joining: Joining, output: Tensor, scale: Tensor) -> Tensor:
    """Return the contribution of an output that has passed a norm before the addition, if there is one."""
    if joining.on_residual_stream:
        return joining.fold(output) * scale.to(output)
    return output * joining.multiplier if joining.multiplier != 1 else output
