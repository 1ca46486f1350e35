"""The contenders of the throughput benchmark, in groups, and the commands that start them."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, get_args

from gguf import GGMLQuantizationType
from rich.console import Console

from benchmarks.contenders import NOT_COMPILED, NOT_INVARIANT
from benchmarks.machine import model_folder
from benchmarks.peers import environments, weights

Group = Literal["limits", "steering", "peers", "kernels"]
GROUPS: tuple[Group, ...] = get_args(Group)

BATCHES = (1, 8, 32)
REFERENCE = "engine"
LIMIT = "linear layers, prepacked"
"""By oneDNN, which is what PyTorch has: what the engine is measured by."""
THREADS = os.cpu_count() or 1
"""Computing threads of every contender."""

Command = list[str]


def members(groups: Sequence[Group]) -> dict[str, Callable[[Console], Command]]:
    """Return the contenders of ``groups``, and the engine always, by name: functions that return their command.

    They raise :class:`PeerUnavailable`.
    """
    of_group: dict[Group, dict[str, Callable[[Console], Command]]] = {
        "limits": _ours("linear layers", LIMIT, "linear layers, our kernels"),
        "steering": _ours("engine, 1 profile", "engine, 8 profiles", "engine, pair", "engine, final-layer pair"),
        "peers": {
            **_ours("generate()"),
            "vLLM": _vllm,
            "llama.cpp": lambda console: _llama_cpp(console, GGMLQuantizationType.BF16),
            "OpenVINO GenAI": lambda console: _openvino(console, "fp16"),
            "llama.cpp, 8 bits": lambda console: _llama_cpp(console, GGMLQuantizationType.Q8_0),
            "OpenVINO GenAI, 8 bits": lambda console: _openvino(console, "int8"),
        },
        "kernels": _ours(NOT_INVARIANT, NOT_COMPILED),
    }
    found = _ours(REFERENCE)
    for group in groups:
        found.update(of_group[group])
    return found


def _ours(*names: str) -> dict[str, Callable[[Console], Command]]:
    return {name: lambda _, name=name: [sys.executable, "-m", "benchmarks.contenders", name] for name in names}  # type: ignore[misc]


def _vllm(console: Console) -> Command:
    return [*_script(environments.vllm(console), "vllm_engine"), model_folder()]


def _llama_cpp(console: Console, kind: GGMLQuantizationType) -> Command:
    script = _script(environments.llama_cpp(console), "llama_server")
    return [*script, str(weights.gguf_file(kind)), str(THREADS), "32"]


def _openvino(console: Console, kind: Literal["fp16", "int8"]) -> Command:
    environment = environments.openvino(console)
    folder = weights.openvino_folder(environment, model_folder(), kind)
    return [*_script(environment, "openvino_engine"), str(folder), str(THREADS)]


def _script(environment: environments.Environment, name: str) -> Command:
    """Return the command of a script of the peers' folder: a path, since it runs in the peer's environment."""
    return [str(environment.python), str(Path(environments.__file__).with_name(f"{name}.py"))]
