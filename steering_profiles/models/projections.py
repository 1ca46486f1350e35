"""Linear projections, whatever holds their weights: a matrix, or what a quantisation library has put in its place."""

import torch
from accelerate.utils import align_module_device
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D


def features(projection: nn.Module) -> tuple[int, int]:
    """Return how many features a projection takes and how many it gives: what its weight holds may be packed.

    Raises:
        TypeError: the module does not say.
    """
    if isinstance(projection, Conv1D):
        return projection.nx, projection.nf
    try:
        return int(projection.in_features), int(projection.out_features)  # type: ignore[arg-type]
    except AttributeError as exc:
        raise TypeError(f"{type(projection).__name__} does not say how many features it has") from exc


def is_dense(projection: nn.Module) -> bool:
    """Return whether the weight of a projection is a matrix of floating-point numbers, which can be read and changed.

    Quantised weights have other shapes, integers, 8-bit floats with scales beside them, or are tensors of another kind.
    """
    weight = getattr(projection, "weight", None)
    if not isinstance(weight, Tensor) or type(weight.data) is not Tensor:
        return False
    inputs, outputs = features(projection)
    shape = (inputs, outputs) if isinstance(projection, Conv1D) else (outputs, inputs)
    return is_computed_in(weight.dtype) and weight.shape == shape


def is_computed_in(dtype: torch.dtype) -> bool:
    """Return whether models compute in this type: floating-point numbers of more than eight bits."""
    return dtype.is_floating_point and dtype.itemsize > 1


def input_major(projection: nn.Module) -> Tensor:
    """Return the weight of a linear module as ``[in, out]``, whichever way round the module keeps it.

    It is the module's own: what is changed in it is changed in the module. What accelerate keeps elsewhere until it is
    used is fetched to where the module computes, which is then but a copy.

    Raises:
        TypeError: the module has no weight matrix, or a quantised one.
    """
    if not is_dense(projection):
        raise TypeError(f"{type(projection).__name__} has no dense weight matrix")
    with align_module_device(projection):
        weight: Tensor = projection.weight  # type: ignore[assignment]
    return weight if isinstance(projection, Conv1D) else weight.T


def effective_weight(projection: nn.Module, dtype: torch.dtype) -> Tensor:
    """Return the ``W``, ``[in, out]``, with which the module computes ``x W + bias``: to read, not to change.

    Where that is no dense matrix it is asked of the module itself, which is given the identity, in ``dtype``, the type
    that the model computes in. What quantises its inputs too, row by row, keeps the identity's rows as they are.
    """
    if is_dense(projection):
        return input_major(projection)
    inputs, _ = features(projection)
    # forward, not a call: steering may have hooks on the module.
    with torch.no_grad(), align_module_device(projection):
        device = next(iter([*projection.parameters(), *projection.buffers()])).device
        ones = torch.eye(inputs, dtype=dtype, device=device)
        products: Tensor = projection.forward(ones)
        bias = getattr(projection, "bias", None)
        return products - bias.to(products) if isinstance(bias, Tensor) else products
