"""Generate the sync client from the async one: ``python client/generate_sync.py``; with ``--check``, only compare."""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import unasync

PACKAGE = Path(__file__).parent / "steering_client"
MODULES = {
    "async_client.py": "sync_client.py",
    "async_experiments.py": "sync_experiments.py",
    "async_stream.py": "sync_stream.py",
}
NAMES = {
    "AsyncSteeringClient": "SteeringClient",
    "AsyncClient": "Client",
    "AsyncBaseTransport": "BaseTransport",
    "AsyncStream": "Stream",
    "AsyncExperiments": "Experiments",
    "async_client": "sync_client",
    "async_experiments": "sync_experiments",
    "async_stream": "sync_stream",
    "anyio": "time",
    "aclose": "close",
    "aread": "read",
    "aiter_sse": "iter_sse",
}


def generate(name: str) -> str:
    """Return the sync source of an async module."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, name), Path(folder, MODULES[name])
        shutil.copy(PACKAGE / name, source)
        unasync.unasync_files([str(source)], [unasync.Rule(name, MODULES[name], NAMES)])
        header = f"# Generated from {name} by client/generate_sync.py; change that one.\n"
        code = header + _without_await(target.read_text(encoding="utf-8"))
    return _ruff(["format"], _ruff(["check", "--quiet", "--select=I", "--fix"], code, name), name)


def _ruff(words: list[str], code: str, name: str) -> str:
    """Return ``code`` as a command of ruff changes it; imports are sorted by the names they have now."""
    file = str(PACKAGE / MODULES[name])
    command = [str(Path(sys.executable).with_name("ruff")), *words, "--stdin-filename", file, "-"]
    return subprocess.run(command, input=code, capture_output=True, text=True, check=True).stdout


def _without_await(code: str) -> str:
    """Remove ``await`` and ``async`` from the examples in docstrings, which unasync does not change."""
    words = re.compile(r"\b(?:await|async) ")
    return re.sub(r"^( *(?:>>>|\.\.\.) .*)$", lambda line: words.sub("", line[1]), code, flags=re.MULTILINE)


def main() -> None:
    """Write the sync client, or exit with status 1 if it is not up to date."""
    for name, generated in MODULES.items():
        target, code = PACKAGE / generated, generate(name)
        if "--check" not in sys.argv:
            target.write_text(code, encoding="utf-8")
        elif not target.exists() or target.read_text(encoding="utf-8") != code:
            sys.exit(f"{target} is not what {name} generates; run: make format")


if __name__ == "__main__":
    main()
