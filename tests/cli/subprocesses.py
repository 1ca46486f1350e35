"""The command ``steer`` in a process of its own, for tests."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.test_imports import HEAVY

STEER = str(Path(sys.executable).with_name("steer"))


def steer(*args: str, through: Sequence[str] = (), **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*through, STEER, *args], capture_output=True, text=True, timeout=200, env=os.environ | {"COLUMNS": "120"} | env
    )


def steer_and_tell(*args: str, without: Sequence[str] = ()) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run the same main function in a new interpreter; return the result and the heavy libraries that it loaded.

    The packages ``without`` are as if they were not installed.
    """
    code = f"""
import atexit, sys
sys.modules.update(dict.fromkeys({list(without)}))
atexit.register(lambda: print(*(name for name in {HEAVY} if name in sys.modules)))
sys.argv[0] = "steer"
from steering_server.cli import main
main()
"""
    result = subprocess.run(
        [sys.executable, "-c", code, *args],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"COLUMNS": "120"},
    )
    *_, told = result.stdout.splitlines()
    return result, told.split()
