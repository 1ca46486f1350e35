"""Float64 all the way: many models compute their norms, or their softmax, in float32 whatever their type is."""

from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class InDouble(TorchFunctionMode):
    """Has whatever is computed inside this context in float32 by wish be computed in float64."""

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
