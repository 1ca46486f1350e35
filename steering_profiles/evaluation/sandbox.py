"""A sandbox for untrusted Python programs: the completions of a model.

Each program runs in new Linux namespaces, which :mod:`.sandbox_launcher` creates without root. If the machine does not
allow this, no program is run.

A program cannot

* use the network, including this machine's own addresses and abstract sockets: its network namespace is empty;
* write a file that lasts or read the user's files: it sees an empty file system in memory (64 MiB), with the system's
  libraries and its Python mounted read-only;
* see other processes, or leave one behind: all its processes end with it;
* exceed 10 s of wall-clock time, or, for each of its few processes, 10 s of CPU time, 1 GiB of address space and files
  of 16 MiB.

The sandbox does not prevent a program from reading ``/usr``, ``/lib`` and the Python installation, from using several
GiB of memory through several processes, or from using a bug in the kernel. It protects against a model's mistakes, not
against an attacker.
"""

import os
import secrets
import signal
import subprocess
import sys
import tempfile
from enum import StrEnum
from functools import cache
from pathlib import Path

from steering_profiles.errors import EvaluationError

TIMEOUT = 10.0
"""Time limit of a program in seconds, including its start."""
_LAUNCHER = Path(__file__).with_name("sandbox_launcher.py")
_READY = b"ready\n"


class Outcome(StrEnum):
    """Outcome of a program."""

    PASSED = "passed"
    """The program ran to its end."""
    FAILED = "failed"
    """The program raised an exception, exited early or exceeded a limit."""
    TIMED_OUT = "timed out"
    """The program was stopped at the time limit."""


def run_program(source: str, timeout: float = TIMEOUT) -> Outcome:
    """Run ``source`` in the sandbox for at most ``timeout`` seconds. Its output is discarded.

    Raises:
        EvaluationError: the sandbox cannot be set up here. The message has the reason; the program has not run.
    """
    # A secret that the program writes at its end, since exit status 0 alone may come from an early exit.
    proof = secrets.token_hex(16)
    reading, writing = os.pipe()
    with tempfile.TemporaryDirectory(prefix="steer-sandbox-") as root, open(reading, "rb") as report:
        try:
            launcher = subprocess.Popen(
                [sys.executable, "-I", str(_LAUNCHER), root, str(writing), str(int(timeout) + 1)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                cwd=root,
                env={},
                pass_fds=(writing,),
                start_new_session=True,
            )
        finally:
            os.close(writing)
        timed_out = False
        ending = f"\n\n__import__('os').write({writing}, b'{proof}')\n"
        try:
            _, complaint = launcher.communicate((source + ending).encode(errors="replace"), timeout)
        except subprocess.TimeoutExpired:
            timed_out = True
        finally:
            if launcher.poll() is None:
                os.killpg(launcher.pid, signal.SIGKILL)
                launcher.communicate()
        said = report.read()  # ends when the last of the program's processes ends
    if timed_out:
        return Outcome.TIMED_OUT
    if not said.startswith(_READY):
        lines = complaint.decode(errors="replace").strip().splitlines() or ["the launcher gave no reason"]
        raise EvaluationError(f"programs cannot be run in a sandbox here, so none is run: {lines[-1]}")
    return Outcome.PASSED if said == _READY + proof.encode() and launcher.returncode == 0 else Outcome.FAILED


@cache
def require_sandbox() -> None:
    """Check that programs can be run in the sandbox.

    Raises:
        EvaluationError: they cannot; the message has the reason.
    """
    if not sys.platform.startswith("linux"):
        raise EvaluationError(f"programs can be run in a sandbox on Linux only; this platform is {sys.platform}")
    if run_program("") is not Outcome.PASSED:
        raise EvaluationError(f"programs cannot be run here: {sys.executable} does not start in the sandbox")
