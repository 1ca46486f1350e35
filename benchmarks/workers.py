"""Contenders in processes of their own, which measure one batch per input line."""

import json
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import IO, Any

from benchmarks.prompts import NEW_TOKENS

_MOST_SECONDS = 300
"""Seconds after which a contender that gives no result is ended."""


class ContenderFailed(Exception):
    """A contender ended or gave no result in time; the message is the reason, in one line."""


class Worker:
    """A running contender."""

    def __init__(self, process: subprocess.Popen[str], errors: IO[str]) -> None:
        self._process = process
        self._errors = errors
        self.described = str(self._read())
        """What it says of the way in which it computes."""

    @property
    def pid(self) -> int:
        """Id of its process."""
        return self._process.pid

    def measure(self, prompts: list[list[int]], new_tokens: int = NEW_TOKENS) -> float:
        """Return the seconds that the contender takes to generate ``new_tokens`` tokens after each of ``prompts``.

        Raises:
            ContenderFailed: it ended, or took longer than it may.
        """
        if self._process.stdin is None:
            raise RuntimeError("the contender has no input")
        try:
            print(json.dumps({"prompts": prompts, "new_tokens": new_tokens}), file=self._process.stdin, flush=True)
        except BrokenPipeError as exc:
            raise ContenderFailed(self._reason()) from exc
        return float(self._read())

    def _read(self) -> Any:
        if self._process.stdout is None:
            raise RuntimeError("the contender has no output")
        timer = threading.Timer(_MOST_SECONDS, self._process.kill)
        timer.start()
        line = self._process.stdout.readline()
        in_time = timer.is_alive()
        timer.cancel()
        if not line:
            raise ContenderFailed(self._reason() if in_time else f"it gave no result within {_MOST_SECONDS} s")
        return json.loads(line)

    def _reason(self) -> str:
        """Return the last line of its errors."""
        status = self._process.wait()
        self._errors.seek(0)
        said = [line for line in self._errors.read().splitlines() if line.strip()]
        return said[-1].strip() if said else f"it ended with status {status}"


@contextmanager
def worker(command: Sequence[str], variables: Mapping[str, str] | None = None) -> Iterator[Worker]:
    """Start a contender, with environment ``variables`` besides the present ones, and wait until it is ready.

    Raises:
        ContenderFailed: it did not start.
    """
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, **(variables or {})},
            start_new_session=True,  # so that the processes that it starts can be ended with it
        )
        try:
            yield Worker(process, errors)
        finally:
            _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    if process.stdin is not None:
        process.stdin.close()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.terminate()  # vLLM has processes of its own to end
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    with suppress(ProcessLookupError):  # raised if nothing that it started is left
        os.killpg(process.pid, signal.SIGKILL)
