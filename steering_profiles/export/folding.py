"""Folding of a profile's scales into weights.

Heads and neurons are scaled at the input of a projection (RASteer, arXiv:2507.00322). Scaling the input of a linear map
is scaling the columns of its matrix: ``W (s * x) + b = (W diag(s)) x + b``. The bias does not change.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from steering_profiles.compatibility import require_compatible
from steering_profiles.errors import ExportError
from steering_profiles.exportable import require_exportable
from steering_profiles.models import LoadedModel, method_of
from steering_profiles.models.projections import input_major
from steering_profiles.steering import ProfileAtStrength, Steering, effect_of


@dataclass(frozen=True, eq=False)
class ScaledProjection:
    """A projection of a model and the factors of its inputs."""

    path: str
    """Path of the module in the model, such as ``model.layers.3.self_attn.o_proj``."""
    module: nn.Module
    factors: Tensor
    """``[in]``, float64, on the CPU."""

    @property
    def columns(self) -> Tensor:
        """Indices of the scaled inputs, ascending: ``[rank]``, at least one."""
        return (self.factors != 1).nonzero().flatten()

    def weight(self) -> Tensor:
        """Return a copy of the weight, ``[in, out]``, in float64 on the CPU; offloaded weights are fetched."""
        return input_major(self.module).detach().to("cpu", torch.float64, copy=True)

    def stored(self, values: Tensor) -> Tensor:
        """Return ``values``, computed in float64, in the dtype of the module's weight.

        Raises:
            ExportError: a value is too large for this dtype.
        """
        dtype: torch.dtype = input_major(self.module).dtype
        stored = values.to(dtype)
        if not stored.isfinite().all():
            raise ExportError(f"{self.path}: a scaled weight is too large for {str(dtype).removeprefix('torch.')}")
        return stored


def scaled_projections(
    loaded: LoadedModel, applied: ProfileAtStrength, *, force: bool = False
) -> tuple[ScaledProjection, ...]:
    """Return the projections of ``loaded`` that a profile scales, at least one, in the order of layers.

    ``force`` accepts a profile made for another model if all of its components exist in this one.

    Raises:
        ExportError: weights cannot express the profile, or the model is quantised.
        ProfileMismatch: the profile was made for another model.
    """
    require_exportable(applied)
    require_compatible(applied.profile, loaded.identity, loaded.anatomy.refuses(applied.profile), force=force)
    _require_unquantised(loaded)
    return tuple(_projections(loaded, applied))


def _projections(loaded: LoadedModel, applied: ProfileAtStrength) -> Iterator[ScaledProjection]:
    family, sizes = loaded.anatomy.family, loaded.anatomy.sizes
    effect = effect_of(Steering((applied,)), sizes)
    for index, layer in enumerate(loaded.anatomy.layers):
        block = f"{family.blocks}.{index}"
        if index in effect.heads:
            factors = effect.heads[index].repeat_interleave(sizes.head_dim)
            yield ScaledProjection(f"{block}.{family.head_output}", layer.head_output, factors)
        if index in effect.neurons:
            module = loaded.anatomy.neuron_output(index)
            yield ScaledProjection(f"{block}.{family.neuron_output}", module, effect.neurons[index])


def quantised_reason(method: str) -> str:
    """Return the reason why weights quantised by ``method`` cannot be scaled, to follow the model's name."""
    return (
        f"is quantised (method {method}): single columns of quantised weights cannot be scaled; export from the "
        "unquantised checkpoint"
    )


def _require_unquantised(loaded: LoadedModel) -> None:
    method = method_of(loaded.model.config)
    if method is not None:
        raise ExportError(f"model {loaded.name} {quantised_reason(method)}")
    for name, parameter in loaded.model.named_parameters():
        if not parameter.is_floating_point():
            raise ExportError(f"model {loaded.name} is quantised: {name} is of type {parameter.dtype}")
