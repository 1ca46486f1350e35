"""Temporary replacement of a module's ``forward``."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

_INSIDE = "_old_forward"
"""Attribute in which accelerate keeps the original forward of a module whose weights or inputs it moves."""


@contextmanager
def replaced_forward(module: nn.Module, forward: Callable[..., Any], *, inside_hooks: bool = False) -> Iterator[None]:
    """Replace the forward of ``module`` inside this context.

    Hooks of torch run as usual. Accelerate moves weights and inputs only if ``inside_hooks``.
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
