"""MLP decomposition of Lv et al. (arXiv:2403.19521): express a layer's MLP output by the MLP's inputs.

Over the prompts of a task, at the last position: ``MLP_n ~= sum_h w_h a[l,h]_n + w_r r_n + b``. ``a[l,h]`` is the
contribution of head h to the residual stream, and ``r`` the residual stream before the layer's attention. The
coefficients are scalars, shared over dimensions and prompts; ``b`` is a vector of the hidden size. ``w_h > 0`` means
that the MLP amplifies head h, ``w_h < 0`` that it erases it. ``b`` is the part of the output that is independent of the
inputs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from steering_profiles.errors import FitError, ModelError
from steering_profiles.fit_settings import require_ridge
from steering_profiles.models import LoadedModel, head_contributions, recorded
from steering_profiles.progress import Progress, Silent
from steering_profiles.tasks.batches import equal_length_batches
from steering_profiles.tasks.task import Example

_CONSTANT = 1e-20
"""Smallest ratio of variation to sum of squares that is not taken for rounding error."""
_COLLINEAR = 1e-10
"""Smallest eigenvalue of the inputs' correlation matrix with which their coefficients can be determined."""
_TAKES_PART = 0.1
"""Smallest weight in a linear combination with which an error message names an input."""


@dataclass(frozen=True, eq=False)
class LayerRecord:
    """Inputs and output of one layer's MLP at the last position of each prompt, in float64 on the CPU."""

    heads: Tensor
    """``[prompts, heads, hidden_size]``: contribution of each head to the residual stream, without the output
    projection's bias."""
    residual_stream: Tensor
    """``[prompts, hidden_size]``: the residual stream before the layer's attention."""
    mlp: Tensor
    """``[prompts, hidden_size]``: contribution of the MLP to the residual stream."""


@dataclass(frozen=True, eq=False)
class Decomposition:
    """Coefficients and intercept of a layer's MLP."""

    heads: Tensor
    """``[heads]``: ``w_h``, float64 like the other tensors."""
    residual_stream: float
    """``w_r``."""
    intercept: Tensor
    """``[hidden_size]``: ``b``."""
    mean_output: Tensor
    """``[hidden_size]``: mean of the MLP's output, the intercept of a fit without inputs."""
    r2: float
    """Share of the output's variance that the fit explains on its own prompts, over all dimensions together."""

    def predict(self, record: LayerRecord) -> Tensor:
        """Return the MLP output predicted from the inputs of ``record``: ``[prompts, hidden_size]``."""
        of_heads = torch.einsum("nhd,h->nd", record.heads, self.heads)
        return of_heads + self.residual_stream * record.residual_stream + self.intercept


def find_layer(loaded: LoadedModel, layer: int) -> int:
    """Return the index of ``layer``, which counts from 0, or from the end if negative.

    Raises:
        ModelError: the model has no such layer.
    """
    layers = loaded.anatomy.sizes.layers
    if not -layers <= layer < layers:
        raise ModelError(
            f"layer is {layer}; allowed for {loaded.name}: 0..{layers - 1}, or -{layers}..-1 counted from the end"
        )
    return layer % layers


@torch.no_grad()
def record_layer(
    loaded: LoadedModel, examples: Sequence[Example], layer: int, progress: Progress | None = None
) -> LayerRecord:
    """Run the plain model on ``examples`` and return the inputs and the output of the MLP of ``layer``.

    ``layer`` counts from 0, or from the end if negative.

    Raises:
        ModelError: the model has no such layer.
    """
    progress = progress or Silent()
    sizes, layer = loaded.anatomy.sizes, find_layer(loaded, layer)
    count, hidden_size = len(examples), sizes.hidden_size
    heads = torch.empty(count, sizes.heads, hidden_size, dtype=torch.double)
    residual_stream = torch.empty(count, hidden_size, dtype=torch.double)
    mlp = torch.empty(count, hidden_size, dtype=torch.double)
    progress.stage(f"recording layer {layer}", count)
    for indices in equal_length_batches(examples):
        tokens = torch.tensor([examples[index].prompt for index in indices], device=loaded.input_device)
        with recorded(loaded.anatomy, [layer]) as states:
            loaded.model(input_ids=tokens, use_cache=False, logits_to_keep=1)
        state = states[layer]
        heads[indices] = head_contributions(loaded.anatomy, layer, state).cpu()
        residual_stream[indices], mlp[indices] = state.residual_stream.double().cpu(), state.mlp.double().cpu()
        progress.advance(len(indices))
    return LayerRecord(heads, residual_stream, mlp)


@torch.no_grad()
def decompose(record: LayerRecord, *, ridge: float = 0.0) -> Decomposition:
    """Fit the coefficients by least squares, in closed form.

    Inputs and output are centred over prompts in each dimension, the stacked centred values are regressed, and
    ``b = mean(MLP) - sum w mean(input)``. So a part that all prompts have in common, such as the bias of the
    attention's output projection, is in ``b``. ``ridge`` shrinks the coefficients: this share of each input's variance
    is added to the variance, so its effect does not depend on the size of the inputs.

    Raises:
        FitError: the prompts do not determine the coefficients (there are too few; an input or the output is the same
            on all of them; without a ridge, inputs are linear combinations of each other; values are not finite), or
            ``ridge`` is not a finite number of 0 or more.
    """
    require_ridge(ridge)
    _require_determined(record)
    inputs = torch.cat([record.heads, record.residual_stream.unsqueeze(1)], dim=1).double()
    mean_inputs, mean_output = inputs.mean(dim=0), record.mlp.double().mean(dim=0)
    centred, output = inputs - mean_inputs, record.mlp.double() - mean_output
    scale = centred.square().sum(dim=(0, 2)).sqrt()
    _require_variation(scale**2, inputs.square().sum(dim=(0, 2)), len(inputs))
    unit = centred / scale.unsqueeze(-1)
    correlations = torch.einsum("nid,njd->ij", unit, unit) + ridge * torch.eye(len(scale), dtype=torch.double)
    _require_independent(correlations)
    coefficients = torch.linalg.solve(correlations, torch.einsum("nid,nd->i", unit, output)) / scale
    fitted = Decomposition(
        heads=coefficients[:-1],
        residual_stream=float(coefficients[-1]),
        intercept=mean_output - torch.einsum("id,i->d", mean_inputs, coefficients),
        mean_output=mean_output,
        r2=math.nan,  # set below
    )
    return replace(fitted, r2=r2(fitted, record))


def require_prompts(prompts: int, heads: int) -> None:
    """Check that there are enough prompts for the coefficients of ``heads`` heads and of the residual stream.

    Raises:
        FitError: there are too few.
    """
    if prompts < heads + 2:
        raise FitError(
            f"{prompts} prompts are too few to decompose the MLP of a layer with {heads} heads; "
            f"at least {heads + 2} are needed"
        )


def r2(decomposition: Decomposition, record: LayerRecord) -> float:
    """Return the share of the variance of ``record``'s output that ``decomposition`` explains.

    The variance is over all dimensions together. 1 means that all of it is explained; 0 is as good as predicting the
    mean of ``record``, and negative values are worse than that.

    Raises:
        FitError: the output is the same on all prompts, so it has no variance.
    """
    total = (record.mlp - record.mlp.mean(dim=0)).square().sum()
    if total <= _CONSTANT * record.mlp.square().sum():
        raise FitError(
            f"the MLP's output is the same on all {len(record.mlp)} prompts, so there is no variance to explain"
        )
    return 1 - float((record.mlp - decomposition.predict(record)).square().sum() / total)


def _require_determined(record: LayerRecord) -> None:
    prompts, heads, _ = record.heads.shape
    require_prompts(prompts, heads)
    for name, values in (
        ("the heads", record.heads),
        ("the residual stream", record.residual_stream),
        ("the MLP's output", record.mlp),
    ):
        wrong = int((~values.isfinite()).flatten(1).any(dim=1).sum())
        if wrong:
            raise FitError(f"{name}: values are not finite on {wrong} of {prompts} prompts")


def _require_variation(varying: Tensor, whole: Tensor, prompts: int) -> None:
    constant = (varying <= _CONSTANT * whole).nonzero().squeeze(-1).tolist()
    if constant:
        named = _named(constant, len(varying))
        raise FitError(
            f"no coefficient can be determined for inputs that are the same on all {prompts} prompts: {named}"
        )


def _require_independent(correlations: Tensor) -> None:
    eigenvalues, combinations = torch.linalg.eigh(correlations)
    if eigenvalues[0] < _COLLINEAR:
        parts = (combinations[:, 0].abs() > _TAKES_PART).nonzero().squeeze(-1).tolist()
        named = _named(parts, len(correlations))
        raise FitError(
            f"least squares cannot determine the coefficients of inputs that are linear combinations of each other on "
            f"these prompts: {named}; use a ridge above 0"
        )


def _named(inputs: Sequence[int], count: int) -> str:
    return ", ".join("the residual stream" if index == count - 1 else f"head {index}" for index in inputs)
