"""The command ``steer`` in a process of its own, for tests."""

import atexit
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from threading import Thread

from tests.cli.forking import CommandLine, as_line

STEER = str(Path(sys.executable).with_name("steer"))

LIGHT = ("steering_server.cli",)
"""Modules of a command that has not imported torch yet."""

WHOLE = (
    *LIGHT,
    "steering_server.api.lifecycle",
    "steering_server.engines.local.backend",
    "steering_profiles.fitting",
    "steering_profiles.reports",
    "transformers.models.llama.modeling_llama",
)
"""Modules that most commands import before they are done."""


class Forked:
    """A process of ``steer``, forked from an interpreter that has imported its modules; one at a time."""

    def __init__(self, forking: subprocess.Popen[str], command: CommandLine) -> None:
        assert forking.stdin is not None
        assert forking.stdout is not None
        forking.stdin.write(as_line(command))
        forking.stdin.flush()
        self.pid = int(forking.stdout.readline())
        self._output = Path(command.output)
        self._status: Future[int] = Future()
        Thread(target=lambda ended: self._status.set_result(int(ended.readline())), args=(forking.stdout,)).start()

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        os.kill(self.pid, number)

    def poll(self) -> int | None:
        """Return the exit status; None while the process runs."""
        return self._status.result() if self._status.done() else None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end of the process and return its exit status.

        Raises:
            TimeoutError: it has not ended within ``timeout`` seconds.
        """
        return self._status.result(timeout)

    def written(self, name: str) -> str:
        """Return what it has written to ``stdout`` or ``stderr``."""
        return (self._output / name).read_text()


@contextmanager
def started(
    *args: str,
    modules: tuple[str, ...] = WHOLE,
    preset: dict[str, str] | None = None,
    through: Sequence[str] = (),
    without: Sequence[str] = (),
    env: dict[str, str] | None = None,
) -> Iterator[Forked]:
    """Run ``steer`` in the background in a process that begins with ``modules`` imported; kill it at the end.

    Variables that libraries read when they are imported are ``preset``. The interpreter is run ``through`` another
    program if one is given. The packages ``without`` are as if they were
    not installed.
    """
    preset = preset or {}
    environment = dict(os.environ) | {"COLUMNS": "120"} | preset | (env or {})
    with tempfile.TemporaryDirectory() as output:
        for name in ("stdout", "stderr"):
            Path(output, name).touch()
        command = CommandLine(args, environment, os.getcwd(), without, output)
        forked = Forked(_forking(modules, tuple(through), **preset), command)
        try:
            yield forked
        finally:
            if forked.poll() is None:
                forked.send_signal(signal.SIGKILL)
            forked.wait()


def steer(
    *args: str, preset: dict[str, str] | None = None, through: Sequence[str] = (), **env: str
) -> subprocess.CompletedProcess[str]:
    """Run ``steer`` in a process that begins with all modules imported; see :func:`started`."""
    with started(*args, preset=preset, through=through, env=env) as forked:
        status = forked.wait()
        return subprocess.CompletedProcess([STEER, *args], status, forked.written("stdout"), forked.written("stderr"))


def steer_and_tell(*args: str, without: Sequence[str] = ()) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run ``steer`` in a process without torch; return the result and the heavy libraries that it has loaded.

    The packages ``without`` are as if they were not installed.
    """
    with started(*args, modules=LIGHT, without=without) as forked:
        status = forked.wait()
        result = subprocess.CompletedProcess([STEER, *args], status, forked.written("stdout"), forked.written("stderr"))
        return result, json.loads(forked.written("loaded"))


def installed_steer(*args: str) -> subprocess.CompletedProcess[str]:
    """Run the installed command in a new interpreter."""
    environment = os.environ | {"COLUMNS": "120"}
    return subprocess.run([STEER, *args], capture_output=True, text=True, timeout=200, env=environment)


@cache
def _forking(modules: tuple[str, ...], through: tuple[str, ...], **env: str) -> subprocess.Popen[str]:
    """Start an interpreter that has imported ``modules``; it ends with this process."""
    forking = subprocess.Popen(
        [*through, sys.executable, "-m", "tests.cli.forking", *modules],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | env,
        cwd=Path(__file__).parents[2],
    )
    atexit.register(forking.communicate)  # closes its input
    return forking
