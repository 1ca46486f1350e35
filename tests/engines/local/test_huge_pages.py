"""Weights lie in huge pages, one behind the other."""

import gc
import re
import sys
from pathlib import Path

import pytest
import torch

from steering_server.engines.local.huge_pages import HugePages
from steering_server.engines.local.prepacking import PrepackedLinears

THP = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def _huge() -> int:
    """Return the bytes of this process in huge pages."""
    sizes = re.findall(r"^AnonHugePages: +(\d+) kB", Path("/proc/self/smaps_rollup").read_text(), re.M)
    return 1024 * int(sizes[0])


huge_pages_are_on = pytest.mark.skipif(
    sys.platform != "linux" or not THP.exists() or "[never]" in THP.read_text(),
    reason="this system gives no huge pages",
)


def test_tensors_of_one_memory_do_not_overlap() -> None:
    memory = HugePages()

    tensors = [memory.empty((size, 3), torch.bfloat16).fill_(size) for size in range(1, 40)]

    assert all((tensor == size).all() for size, tensor in enumerate(tensors, start=1))


def test_tensors_are_aligned_to_cache_lines() -> None:
    memory = HugePages()

    assert {memory.empty((odd,), torch.uint8).data_ptr() % 64 for odd in (1, 3, 65)} == {0}


def test_a_copy_is_contiguous_and_equal() -> None:
    source = torch.randn(5, 7).T

    copy = HugePages().copy(source)

    assert torch.equal(copy, source)
    assert copy.is_contiguous()


@pytest.mark.parametrize("shape", [(), (0,), (3, 0)])
def test_scalars_and_empty_tensors_are_copied(shape: tuple[int, ...]) -> None:
    source = torch.ones(shape)

    assert torch.equal(HugePages().copy(source), source)


def test_a_tensor_larger_than_a_chunk_has_one_of_its_own() -> None:
    tensor = HugePages().empty((2**26 + 1,), torch.uint8)

    assert tensor.shape == (2**26 + 1,)


@huge_pages_are_on
def test_memory_is_in_huge_pages_and_goes_back_with_the_last_tensor() -> None:
    before = _huge()
    tensors = [HugePages().empty((2**25,), torch.uint8).fill_(1)]

    during = _huge()
    tensors.clear()
    gc.collect()

    assert during - before >= 2**25 - 2**22
    assert _huge() < during - 2**24


@huge_pages_are_on
def test_prepacked_weights_are_in_huge_pages() -> None:
    model = torch.nn.Sequential(*(torch.nn.Linear(1024, 2048, bias=False) for _ in range(4)))
    before = _huge()

    prepacked = PrepackedLinears(model)

    assert prepacked.all
    assert _huge() - before >= 4 * 2**23 - 2**22
