"""Proof at start that every steered part is in what really runs: eager, compiled or captured code.

For each part the spare row's factors become NaN and all tokens of a dummy step point to that row. The step's output
must then have NaN, and none before.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from steering_server.engines.vllm.plugin.tables import IDENTITY, Part, TokenRows
from steering_server.errors import ConfigError


def require_steered(tables: Mapping[Part, Tensor], rows: TokenRows, spare: int, run: Callable[[], Any]) -> None:
    """Check that ``run``, a dummy step, reads every table; ``spare`` is a row that no request has.

    Raises:
        ConfigError: it does not read one, so that requests would be answered unsteered; or its output is not finite.
    """
    with _all_tokens_in(rows, spare):
        if not _is_finite(run()):
            raise ConfigError("the model's output is not finite in a dummy step, so that steering cannot be proved")
        for part, table in tables.items():
            before = table[spare].clone()
            table[spare].fill_(float("nan"))
            reached = not _is_finite(run())
            table[spare].copy_(before)
            if not reached:
                raise ConfigError(
                    f"{part} is not steered by what vLLM runs: it does not read the steering table. vLLM does not "
                    "start, since requests would be answered unsteered; --enforce-eager may help, or an empty "
                    "VLLM_CACHE_ROOT"
                )


@contextmanager
def _all_tokens_in(rows: TokenRows, row: int) -> Iterator[None]:
    rows.dummy_row = row
    rows.fill_dummy()
    try:
        yield
    finally:
        rows.dummy_row = IDENTITY
        rows.fill_dummy()


def _is_finite(output: Any) -> bool:
    """Return whether a step's output is finite: hidden states, or what goes to the next stage of a pipeline.

    Raises:
        ConfigError: vLLM does not show the output of this stage.
    """
    if output is None:
        raise ConfigError(
            "vLLM does not show what this stage of the pipeline computes, so that steering cannot be proved; start "
            "without the proof: additional_config.steering.canary is false"
        )
    tensors = list(output.tensors.values()) if hasattr(output, "tensors") else [output]
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)
