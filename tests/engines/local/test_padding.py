"""Small inputs of linear layers are padded where the matrix kernels of this machine then take less time."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import nn

from steering_server.engines.local import padding
from steering_server.engines.local.padding import quickest_padding
from steering_server.engines.local.prepacking import PrepackedLinear


def prepacked(size: int) -> list[PrepackedLinear]:
    return [PrepackedLinear([nn.Linear(size, size)], shared=True)]


def timed_as(seconds: dict[int, float]) -> Callable[[Sequence[PrepackedLinear], int, torch.dtype], float]:
    """Return a measurement on a processor whose kernels take so long, by the number of tokens."""
    return lambda linears, tokens, dtype: seconds[tokens]


@pytest.fixture(autouse=True)
def nothing_measured(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(padding, "_measured", {})


@pytest.mark.parametrize(
    ("seconds", "expected"), [({1: 1.2, 4: 1.0}, 4), ({1: 1.0, 4: 1.2}, 1), ({1: 1.0, 4: 0.99}, 1)]
)
def test_inputs_are_padded_where_that_saves_time(
    seconds: dict[int, float], expected: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(padding, "_seconds", timed_as(seconds))
    assert quickest_padding(prepacked(2048), torch.float32) == expected


def test_weights_that_take_no_time_are_not_measured(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(padding, "_seconds", timed_as({}))
    assert quickest_padding(prepacked(64), torch.float32) == 1
    assert quickest_padding([], torch.float32) == 1


def test_a_second_engine_on_the_same_shapes_pads_as_the_first():
    linears = prepacked(2048)
    first = quickest_padding(linears, torch.float32)
    assert first in (1, 4)
    assert [quickest_padding(prepacked(2048), torch.float32) for _ in range(3)] == [first] * 3
