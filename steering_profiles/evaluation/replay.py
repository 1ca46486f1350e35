"""Repeated passes over the same tokens that run the final layer only."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from steering_profiles.models import LoadedModel
from steering_profiles.models.forwards import replaced_forward
from steering_profiles.steering import UNSTEERED, Steering, divergence_layer


class FinalLayerReplay:
    """Cache of the inputs of a model's last block, so that the next pass over the same tokens starts there.

    The model's own code runs. The blocks before the last return the cached output, and everything after them,
    including masks and positions, is computed as usual. The cache holds ``[batch, seq, hidden_size]`` per input.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self._sizes = loaded.anatomy.sizes
        self._before: list[nn.Module] = [layer.block for layer in loaded.anatomy.layers[:-1]]
        self._cached: dict[tuple[torch.Size, bytes], Any] = {}

    @contextmanager
    def over(self, tokens: Tensor, steering: Steering) -> Iterator[None]:
        """Use the cache in one forward pass over ``tokens``, ``[batch, seq]``, with the same ``steering`` in every row.

        Steering that changes anything below the last block is computed in full.
        """
        if not self._before or divergence_layer(steering, UNSTEERED, self._sizes) < self._sizes.layers - 1:
            yield
            return
        key = (tokens.shape, tokens.cpu().numpy().tobytes())
        if key in self._cached:
            with _returning(self._before, self._cached[key]):
                yield
            return

        def keep(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            self._cached[key] = output

        with self._before[-1].register_forward_hook(keep):
            yield


@contextmanager
def _returning(blocks: Sequence[nn.Module], output: Any) -> Iterator[None]:
    """Replace the forward pass of each of ``blocks`` by returning ``output``."""
    with ExitStack() as stack:
        for block in blocks:
            stack.enter_context(replaced_forward(block, lambda *_, **__: output))
        yield
