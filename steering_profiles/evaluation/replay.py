"""What only the final layer changes, measured again and again at the cost of that layer."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from steering_profiles.models import LoadedModel
from steering_profiles.models.forwards import replaced_forward
from steering_profiles.steering import UNSTEERED, Steering, first_difference


class FinalLayerReplay:
    """Remembers what entered a model's last block, so that the next pass over the same tokens begins there.

    The model's own code runs: the blocks before the last hand on what was remembered, and everything after them,
    masks and positions included, is computed as ever. What is remembered is ``[batch, seq, width]`` for each input.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self._sizes = loaded.anatomy.sizes
        self._before: list[nn.Module] = [layer.block for layer in loaded.anatomy.layers[:-1]]
        self._reached: dict[tuple[torch.Size, bytes], Any] = {}

    @contextmanager
    def over(self, tokens: Tensor, steering: Steering) -> Iterator[None]:
        """Hold for one forward pass over ``tokens``, ``[batch, seq]``, every row under ``steering``.

        Steering that changes anything below the last block is computed in full.
        """
        if not self._before or first_difference(steering, UNSTEERED, self._sizes) < self._sizes.layers - 1:
            yield
            return
        key = (tokens.shape, tokens.cpu().numpy().tobytes())
        if key in self._reached:
            with _handing_on(self._before, self._reached[key]):
                yield
            return

        def keep(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            self._reached[key] = output

        with self._before[-1].register_forward_hook(keep):
            yield


@contextmanager
def _handing_on(blocks: Sequence[nn.Module], output: Any) -> Iterator[None]:
    """Let every one of ``blocks`` return ``output`` and compute nothing."""
    with ExitStack() as stack:
        for block in blocks:
            stack.enter_context(replaced_forward(block, lambda *_, **__: output))
        yield
