"""Forward hooks that apply per-row factors to a running model.

The hooks are attached once and stay; what they do in one forward pass is set by :meth:`SteeringHandle.step`. Outside
of a step they do nothing, and within it only the layers that some row steers are touched.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from steering_profiles.composition import Steering
from steering_profiles.errors import HookError
from steering_profiles.models import Anatomy, LoadedModel
from steering_profiles.steering.table import SteeringTable, StepFactors, require_no_conditions
from steering_profiles.steering.token_rows import TokenRows


def attach(loaded: LoadedModel) -> "SteeringHandle":
    """Attach all steering hooks to ``loaded`` and return their handle; if one fails, none is left attached."""
    return SteeringHandle(loaded.anatomy, SteeringTable(loaded.anatomy.sizes, loaded.dtype))


class SteeringHandle:
    """Steering hooks of one model, with the table of their factors."""

    def __init__(self, anatomy: Anatomy, table: SteeringTable) -> None:
        self._anatomy = anatomy
        self.table = table
        self._factors: StepFactors | None = None
        self._due: set[str] = set()
        self._own_value: Tensor | None = None
        self._handles: list[RemovableHandle] = []
        try:
            self._attach()
        except BaseException:
            self.remove()
            raise

    def acquire(self, steering: Steering) -> int:
        """Return the table row of ``steering`` (0 for the baseline). Release it with :meth:`release`.

        Raises:
            GateError: the steering is gated; use its ``closed`` or ``opened`` part.
            ConditionError: the steering has conditions; use :class:`.TokenRows`.
            ModelError: the steering scales neurons, and this model's cannot be scaled.
        """
        if any(applied.profile.neurons for applied in steering):
            self._anatomy.require_neurons()
        return self.table.acquire(steering)

    def release(self, row: int) -> None:
        """Release a row from :meth:`acquire`."""
        self.table.release(row)

    def attends_to_itself(self, row: int) -> bool:
        """Return whether a table row has self-only attention with share 1, which needs no keys of the final layer."""
        return self.table.self_only_attention(row) == 1

    @contextmanager
    def step(
        self, rows: Sequence[int], *, ragged: bool = False, tokens_per_layer: Sequence[int] | None = None
    ) -> Iterator[None]:
        """Steer the forward pass that is made inside this context.

        ``rows`` are table rows: one per row of a ``[batch, seq]`` input, or, with ``ragged``, one per token of a
        ``[1, tokens]`` input in which sequences are concatenated. Of a ragged batch each layer computes the first
        ``tokens_per_layer[layer]`` tokens; None for all.

        Raises:
            HookError: a hook with factors to apply did not run, so the output is not steered as requested.
        """
        with self.step_by(self.table.gather(rows, (1, len(rows)) if ragged else (len(rows), 1), tokens_per_layer)):
            yield

    @contextmanager
    def step_by(self, factors: StepFactors | None) -> Iterator[None]:
        """Steer the forward pass that is made inside this context by factors that were gathered elsewhere.

        Raises:
            HookError: a hook with factors to apply did not run.
        """
        self._factors = factors
        self._due = _due(factors)
        try:
            yield
            if self._due:
                raise HookError(f"the output was not steered: no hook ran for {', '.join(sorted(self._due))}")
        finally:
            self._factors, self._own_value = None, None
            self._due = set()

    @contextmanager
    def applied(self, steerings: Sequence[Steering], held: Sequence[Sequence[int]] | None = None) -> Iterator[None]:
        """Steer one forward pass over a ``[batch, seq]`` input, with one steering per row of the batch.

        ``held`` are the conditions that hold at each position of the input, ``[batch][seq]``
        (:meth:`.ConditionTrace.held`); they are needed where a steering has conditions.

        Raises:
            GateError: a steering is gated; :func:`.gating.steered_logits` makes both passes.
            ConditionError: a steering has conditions, and ``held`` is not given.
        """
        rows = [TokenRows(self, steering) for steering in steerings]
        try:
            of_tokens = [
                row.of(some)
                for row, some in zip(rows, held if held is not None else _nothing_held(steerings), strict=True)
            ]
            shape = len(of_tokens), len(of_tokens[0])
            with self.step_by(self.table.gather([row for some in of_tokens for row in some], shape)):
                yield
        finally:
            for row in rows:
                row.release()

    def remove(self) -> None:
        """Remove all hooks from the model."""
        while self._handles:
            self._handles.pop().remove()

    def changes_heads(self, layer: int) -> bool:
        """Whether this step changes heads' outputs of a layer."""
        if self._factors is None:
            return False
        is_last = layer == self._anatomy.sizes.layers - 1
        return layer in self._factors.heads or (is_last and self._factors.self_only_attention is not None)

    def changes_neurons(self, layer: int) -> bool:
        """Whether this step changes neurons' activations of a layer."""
        return self._factors is not None and layer in self._factors.neurons

    def steer_heads(self, layer: int, z: Tensor) -> Tensor:
        """Return the heads' outputs ``z`` of a layer, ``[batch, seq, heads * head_dim]``, as this step steers them."""
        if self._factors is None:
            return z
        scale = _on(z.device, self._factors.heads, layer)
        own = self._factors.self_only_attention if layer == self._anatomy.sizes.layers - 1 else None
        if own is not None:
            z = self._mix_own_value(z, own)
        if scale is not None:
            self._due.discard(f"heads of layer {layer}")
            z = z * scale
        return z

    def steer_neurons(self, layer: int, activations: Tensor) -> Tensor:
        """Return the neurons' activations of a layer, ``[..., neurons]``, as this step steers them."""
        scale = _on(activations.device, self._factors.neurons, layer) if self._factors is not None else None
        if scale is None:
            return activations
        self._due.discard(f"neurons of layer {layer}")
        return (_by_row(activations, scale) * scale).view_as(activations)

    def keep_own_values(self, projected: Tensor) -> None:
        """Keep the final layer's value vectors, the output of its ``values`` module, for :meth:`steer_heads`."""
        if self._factors is not None and self._factors.self_only_attention is not None:
            self._own_value = self._anatomy.values_per_head(projected)

    def steer_final_mlp(self, output: Tensor) -> Tensor:
        """Return the output of the final layer's MLP, ``[..., hidden_size]``, as this step steers it."""
        if self._factors is None or self._factors.intercept is None:
            return output
        self._due.discard("final-layer intercept")
        intercept = self._factors.intercept.to(output.device) / self._anatomy.final_layer.mlp_joining.multiplier
        return (_by_row(output, intercept) - intercept).view_as(output)

    def _attach(self) -> None:
        for index, layer in enumerate(self._anatomy.layers):
            self._handles.append(layer.head_output.register_forward_pre_hook(self._head_hook(index)))
            if layer.neuron_output is not None:
                self._handles.append(layer.neuron_output.register_forward_pre_hook(self._neuron_hook(index)))
        final = self._anatomy.final_layer
        self._handles.append(
            final.values.register_forward_hook(lambda module, args, output: self.keep_own_values(output))
        )
        self._handles.append(final.mlp.register_forward_hook(lambda module, args, output: self.steer_final_mlp(output)))

    def _head_hook(self, layer: int) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
        return lambda module, args: (self.steer_heads(layer, args[0]), *args[1:])

    def _neuron_hook(self, layer: int) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
        return lambda module, args: (self.steer_neurons(layer, args[0]), *args[1:])

    def _mix_own_value(self, z: Tensor, own: Tensor) -> Tensor:
        """Apply self-only attention: the last-position mask of Lv et al. (arXiv:2403.19521).

        Rows with share 0 stay bit-identical. Rows with share 1 are exactly the value, even where ``z`` is not finite,
        because no key of the final layer matters.
        """
        if self._own_value is None:
            return z  # the effect stays due, so the step raises an error
        self._due.discard("final-layer self-only attention")
        own = own.to(z.device)
        value = self._own_value.to(z.device).view_as(z)
        return ((1 - own) * z + own * value).where(own > 0, z).where(own < 1, value)


def _nothing_held(steerings: Sequence[Steering]) -> list[list[int]]:
    """Return what :class:`TokenRows` needs for steerings without conditions: one row for all positions of each."""
    for steering in steerings:
        require_no_conditions(steering)
    return [[0] for _ in steerings]


def _by_row(values: Tensor, factors: Tensor) -> Tensor:
    """Return ``values`` as ``[batch, seq, features]``; some MLPs flatten the batch."""
    return values.view(factors.shape[0], -1, values.shape[-1])


def _on(device: torch.device, factors: dict[int, Tensor], layer: int) -> Tensor | None:
    """Return the factors of ``layer`` on ``device``. They stay there for later steps with the same rows."""
    factor = factors.get(layer)
    if factor is not None and factor.device != device:
        factor = factors[layer] = factor.to(device)
    return factor


def _due(factors: StepFactors | None) -> set[str]:
    if factors is None:
        return set()
    due = {f"heads of layer {layer}" for layer in factors.heads} | {f"neurons of layer {n}" for n in factors.neurons}
    if factors.self_only_attention is not None:
        due.add("final-layer self-only attention")
    if factors.intercept is not None:
        due.add("final-layer intercept")
    return due
