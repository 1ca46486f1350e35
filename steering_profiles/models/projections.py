"""Linear projections with dense or quantised weights."""

import torch
from accelerate.utils import align_module_device
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D


def features(projection: nn.Module) -> tuple[int, int]:
    """Return the numbers of input and output features; the shape of a quantised weight may differ from them.

    Raises:
        TypeError: the module does not have them.
    """
    if isinstance(projection, Conv1D):
        return projection.nx, projection.nf
    try:
        return int(projection.in_features), int(projection.out_features)  # type: ignore[arg-type]
    except AttributeError as exc:
        raise TypeError(f"{type(projection).__name__} has no in_features and out_features") from exc


def is_dense(projection: nn.Module) -> bool:
    """Return whether the weight of a projection is a plain floating-point matrix, which can be read and changed.

    Quantised weights have other shapes, are integers or 8-bit floats with separate scales, or are tensor subclasses.
    """
    weight = getattr(projection, "weight", None)
    if not isinstance(weight, Tensor) or type(weight.data) is not Tensor:
        return False
    inputs, outputs = features(projection)
    shape = (inputs, outputs) if isinstance(projection, Conv1D) else (outputs, inputs)
    return is_computed_in(weight.dtype) and weight.shape == shape


def is_computed_in(dtype: torch.dtype) -> bool:
    """Return whether models compute in ``dtype``: floating-point numbers of more than eight bits."""
    return dtype.is_floating_point and dtype.itemsize > 1


def input_major(projection: nn.Module) -> Tensor:
    """Return the weight of a linear module as ``[in, out]``, whatever the layout in the module.

    The result shares memory with the module's weight. Of a weight that accelerate has offloaded it is a copy on the
    execution device.

    Raises:
        TypeError: the module has no dense weight.
    """
    if not is_dense(projection):
        raise TypeError(f"{type(projection).__name__} has no dense weight matrix")
    with align_module_device(projection):
        weight: Tensor = projection.weight  # type: ignore[assignment]
    return weight if isinstance(projection, Conv1D) else weight.T


def effective_weight(projection: nn.Module, dtype: torch.dtype) -> Tensor:
    """Return the matrix ``W``, ``[in, out]``, with which the module computes ``x W + bias``. It must not be changed.

    For a quantised weight it is the module's output for the identity matrix in ``dtype``, the dtype that the model
    computes in. Modules that also quantise their inputs row by row represent the rows of the identity exactly.
    """
    if is_dense(projection):
        return input_major(projection)
    inputs, _ = features(projection)
    # forward instead of a call, because steering may have hooks on the module.
    with torch.no_grad(), align_module_device(projection):
        device = next(iter([*projection.parameters(), *projection.buffers()])).device
        ones = torch.eye(inputs, dtype=dtype, device=device)
        products: Tensor = projection.forward(ones)
        bias = getattr(projection, "bias", None)
        return products - bias.to(products) if isinstance(bias, Tensor) else products
