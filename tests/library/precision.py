"""Computation in float64 throughout: many models compute norms or softmax in float32 whatever their dtype."""

from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class InDouble(TorchFunctionMode):
    """Replace conversions to float32 inside this context by conversions to float64."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is torch.Tensor.float:
            func = torch.Tensor.double
        return func(*map(_wider, args), **{name: _wider(value) for name, value in (kwargs or {}).items()})


def _wider(value: object) -> object:
    return torch.float64 if value is torch.float32 else value
