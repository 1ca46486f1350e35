"""The machine and the model of a measurement."""

import os
import platform
from pathlib import Path

import torch

from steering_profiles.models import ModelSource
from steering_profiles.models.embedded import prepare


def model_folder() -> str:
    """Return the folder of the embedded model, in a form that every contender can load."""
    return str(prepare(ModelSource().cache))


def machine() -> dict[str, str | int | None]:
    """Return the processor, the cores and the versions of Python and torch."""
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
