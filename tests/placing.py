"""The same small models placed otherwise: on disk, split, fetched for the moment of use, on a GPU if there is one."""

from pathlib import Path

import pytest
import torch
from accelerate import cpu_offload

from steering_profiles.models import LoadedModel, ModelSource, load_model
from steering_profiles.models.placement import Device
from steering_profiles.source import DtypeName
from tests.families import EXPERTS, build_family

PLACED = ("llama", "gpt2", "opt-350m", "gemma3", "phi3", "qwen3-moe")
"""Families that differ in what matters here: fused projections, norms behind components, tied weights, experts."""

_needs_gpu = (pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))
_needs_two = (pytest.mark.gpu, pytest.mark.skipif(torch.cuda.device_count() < 2, reason="no two GPUs"))
PLACEMENTS = (
    "fetched from memory",
    "on disk",
    "split",
    pytest.param("GPU", marks=_needs_gpu),
    pytest.param("GPU and CPU", marks=_needs_gpu),
    pytest.param("GPU and disk", marks=_needs_gpu),
    pytest.param("two GPUs", marks=_needs_two),
)


def save_family(case: str, folder: Path) -> Path:
    """Save a model as the hub has it; a tied weight is stored once, experts are stored one by one."""
    loaded = build_family(case)
    loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    return folder


def load_placed(case: str, folder: Path, placement: str = "whole", *, dtype: DtypeName = "float64") -> LoadedModel:
    """Load what :func:`save_family` saved at a placement; ``whole`` is all in the CPU's memory."""
    source = ModelSource(
        model=str(folder), dtype=dtype, device_map=_device_map(case, placement), cache=folder.parent / "cache"
    )
    loaded = load_model(source)
    if case in EXPERTS:
        loaded.model.set_experts_implementation("eager")
    if placement == "fetched from memory":
        cpu_offload(loaded.model, torch.device("cpu"))
    return loaded


def _device_map(case: str, placement: str) -> str | dict[str, Device]:
    family = build_family(case).anatomy.family
    first, last = f"{family.blocks}.0", f"{family.blocks}.2"
    maps: dict[str, str | dict[str, Device]] = {
        "on disk": "disk",
        # One whole layer, and of the last one some parts, among them the one whose output is mixed with own values.
        "split": {"": "cpu", first: "disk", f"{last}.{family.head_output}": "disk", f"{last}.{family.mlp}": "disk"},
        "GPU": "0",
        "GPU and CPU": {"": 0, first: "cpu", f"{last}.{family.head_output}": "cpu"},
        "GPU and disk": {"": 0, first: "disk", last: "disk"},
        "two GPUs": {"": 0, last: 1},
    }
    return maps.get(placement, "cpu")
