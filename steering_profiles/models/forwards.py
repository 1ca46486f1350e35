"""Another ``forward`` for one module, for a while."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

_INSIDE = "_old_forward"
"""Where accelerate keeps the forward of a module whose weights or inputs it moves about."""


@contextmanager
def replaced_forward(module: nn.Module, forward: Callable[..., Any], *, inside_hooks: bool = False) -> Iterator[None]:
    """Have ``module`` compute ``forward`` inside this context.

    Hooks of torch run around it as ever; what accelerate does to weights and inputs is done only ``inside_hooks``.
    """
    name = _INSIDE if inside_hooks and _INSIDE in vars(module) else "forward"
    own = vars(module).get(name)
    setattr(module, name, forward)
    try:
        yield
    finally:
        if own is None:
            delattr(module, name)
        else:
            setattr(module, name, own)
