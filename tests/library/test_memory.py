"""Models that do not fit into memory are refused before their weights are read."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from steering_profiles.errors import ModelLoadError
from steering_profiles.models import ModelSource, load_model, memory
from steering_profiles.models.memory import free_memory, require_memory
from tests.families import build_family
from tests.placing import save_family

Machine = Callable[..., None]
CPU = torch.device("cpu")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Simulate a machine with this much free memory (KiB), and containers with limits (bytes)."""

    def seem(free: int, swap: int = 0, **groups: tuple[str, int, int]) -> None:
        membership, control = tmp_path / "membership", tmp_path / "cgroup"
        membership.write_text("1:cpu:/elsewhere\n0::/outer/inner\n")
        for name, (limit, used, cached) in groups.items():
            folder = control / "outer" / ("inner" if name == "inner" else "")
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "memory.max").write_text(f"{limit}\n")
            (folder / "memory.current").write_text(f"{used}\n")
            (folder / "memory.stat").write_text(f"anon 5\nactive_file {cached}\ninactive_file 1\n")
        monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1024 * free))
        monkeypatch.setattr(psutil, "swap_memory", lambda: SimpleNamespace(free=1024 * swap))
        monkeypatch.setattr(memory, "_MEMBERSHIP", membership)
        monkeypatch.setattr(memory, "_CONTROL_GROUPS", control)

    return seem


def test_free_memory_includes_swap(machine: Machine):
    machine(100, swap=20)
    assert free_memory(CPU) == 120 * 1024


@pytest.mark.parametrize(
    ("groups", "free"),
    [
        ({"inner": ("1000", 400, 50)}, 651),
        ({"outer": ("1000", 400, 50)}, 651),
        ({"inner": ("max", 400, 50)}, 100 * 1024),
        ({"inner": ("5000", 400, 50), "outer": ("1000", 900, 0)}, 101),
    ],
)
def test_free_memory_is_within_the_limit_of_every_container(machine: Machine, groups: dict, free: int):
    machine(100, **groups)
    assert free_memory(CPU) == free


def test_a_device_of_unknown_memory_refuses_no_model(machine: Machine):
    machine(0)
    assert free_memory(torch.device("mps")) is None
    require_memory(build_family("llama").model, torch.float64, {"": "mps"})


def test_this_machine_has_free_memory():
    free = free_memory(CPU)
    assert free is not None
    assert free > 2**20


def weights_of(case: str) -> int:
    return sum(parameter.numel() for parameter in build_family(case).model.parameters())


@pytest.mark.parametrize("case", ["llama", "gemma3"])  # one whose unembedding is a matrix of its own, and one tied
@pytest.mark.parametrize(("dtype", "width"), [(torch.float32, 4), (torch.bfloat16, 2)])
def test_memory_of_the_size_of_the_weights_is_enough(machine: Machine, case: str, dtype: torch.dtype, width: int):
    needed = weights_of(case) * width // 1024
    machine(needed + 1)
    require_memory(build_family(case).model, dtype, {"": "cpu"})
    machine(needed - 1)
    with pytest.raises(ValueError, match="not enough memory on cpu: its weights take"):
        require_memory(build_family(case).model, dtype, {"": "cpu"})


def test_weights_on_disk_need_no_memory(machine: Machine):
    machine(0)
    require_memory(build_family("llama").model, torch.float32, {"": "disk"})


def test_quantised_weights_are_not_refused_by_their_shapes(machine: Machine):
    machine(0)
    model = build_family("llama").model
    model.config.quantization_config = {"quant_method": "gptq"}
    require_memory(model, torch.float32, {"": "cpu"})


def test_loading_is_refused_before_weights_are_read(machine: Machine, tmp_path: Path):
    folder = save_family("llama", tmp_path / "model")
    (folder / "model.safetensors").write_bytes(b"not read")
    machine(64)
    with pytest.raises(
        ModelLoadError, match=r"not enough memory on cpu: .* are free; use a smaller dtype, or the device map auto"
    ):
        load_model(ModelSource(model=str(folder), cache=tmp_path))


@pytest.mark.parametrize("device_map", ["auto", "disk", {"": "disk", "model.norm": "cpu"}])
def test_a_device_map_that_needs_less_memory_is_not_refused(machine: Machine, tmp_path: Path, device_map):
    folder = save_family("llama", tmp_path / "model")
    machine(64)
    load_model(ModelSource(model=str(folder), cache=tmp_path, device_map=device_map, dtype="float32"))


_FREED_BETWEEN = """
import psutil
from steering_profiles.models.memory import return_freed_memory

blocks = [bytearray(100_000) for _ in range(2_000)]  # smaller than what the C library maps on its own
last = bytearray(100_000)
del blocks
before = psutil.Process().memory_info().rss
return_freed_memory()
print(before - psutil.Process().memory_info().rss)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs the GNU C library")
def test_freed_memory_below_memory_in_use_goes_back_to_the_system() -> None:
    result = subprocess.run([sys.executable, "-c", _FREED_BETWEEN], capture_output=True, text=True, check=True)

    assert int(result.stdout) > 150_000_000
