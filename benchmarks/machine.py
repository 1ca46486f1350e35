"""What the figures were measured on, and with which weights."""

import os
import platform
from pathlib import Path

import torch

from steering_profiles.models import ModelSource
from steering_profiles.models.embedded import prepare


def model_folder() -> str:
    """Return the folder of the embedded model, as every contender can load it."""
    return str(prepare(ModelSource().cache))


def machine() -> dict[str, str | int | None]:
    """Return what tells this machine from another."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
