"""What of a profile weights can carry.

Heads and neurons are scaled where they enter a projection (RASteer, arXiv:2507.00322), and scaling what enters a
linear map is scaling the columns of its matrix: ``W (s * x) + b = (W diag(s)) x + b``. The bias stays as it is.
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
    """A projection of a model and the factors of what enters it."""

    path: str
    """Where the module is in the model, such as ``model.layers.3.self_attn.o_proj``."""
    module: nn.Module
    factors: Tensor
    """``[in]``, float64, on the CPU."""

    @property
    def columns(self) -> Tensor:
        """The indices of the inputs that are scaled, ascending: ``[rank]``, at least one."""
        return (self.factors != 1).nonzero().flatten()

    def weight(self) -> Tensor:
        """Return a copy of the weight, ``[in, out]``, in float64 on the CPU, wherever accelerate keeps it."""
        return input_major(self.module).detach().to("cpu", torch.float64, copy=True)

    def stored(self, values: Tensor) -> Tensor:
        """Return ``values``, which are computed in float64, in the type of the module's weight.

        Raises:
            ExportError: that type cannot hold one of them.
        """
        dtype: torch.dtype = input_major(self.module).dtype
        stored = values.to(dtype)
        if not stored.isfinite().all():
            raise ExportError(f"{self.path}: a scaled weight is too large for {str(dtype).removeprefix('torch.')}")
        return stored


def scaled_projections(
    loaded: LoadedModel, applied: ProfileAtStrength, *, force: bool = False
) -> tuple[ScaledProjection, ...]:
    """Return the projections of ``loaded`` that a profile scales, from the first layer to the last; at least one.

    ``force`` accepts a profile made for another model as long as every component it names exists in this one.

    Raises:
        ExportError: weights cannot carry the profile, or the model's are quantised.
        ProfileMismatch: the profile does not fit the model.
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


def quantised(method: str) -> str:
    """Return why weights that are quantised by ``method`` cannot be scaled, to follow the model's name."""
    return (
        f"is quantised (method {method}): what quantised weights hold cannot be scaled one column at a time; export "
        "from the checkpoint that it was made of"
    )


def _require_unquantised(loaded: LoadedModel) -> None:
    method = method_of(loaded.model.config)
    if method is not None:
        raise ExportError(f"model {loaded.name} {quantised(method)}")
    for name, parameter in loaded.model.named_parameters():
        if not parameter.is_floating_point():
            raise ExportError(f"model {loaded.name} is quantised: {name} is of type {parameter.dtype}")
