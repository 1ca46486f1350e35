"""Run Python programs that nobody has read: the completions of a model.

Each program runs in namespaces of its own, made by :mod:`.sandbox_launcher`, which Linux lets any user do on most
machines. Where it is not allowed, programs are not run at all.

What a program cannot do:

* reach the network, this machine's own addresses and abstract sockets among them: its network is empty;
* write a file that lasts, or read one of the user's: it sees an empty file system in memory (64 MiB), in which only the
  system's libraries and the Python that runs it are mounted, read-only;
* see other processes, or leave one behind: when it ends or is stopped, everything that it started ends with it;
* run on: it has 10 s by the clock, and each of its few processes as much processor time, 1 GiB of address space and
  files of 16 MiB.

What is not prevented: reading ``/usr``, ``/lib`` and the Python installation; taking several GiB of memory for those
seconds, through several processes; and what a fault of the kernel allows. It is a sandbox for a model's mistakes, not
for an attacker's work.
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
"""Seconds that a program may take, its start included."""
_LAUNCHER = Path(__file__).with_name("sandbox_launcher.py")
_READY = b"ready\n"


class Outcome(StrEnum):
    """How a program ended."""

    PASSED = "passed"
    """It ran to its end."""
    FAILED = "failed"
    """It raised, left early, or hit a limit."""
    TIMED_OUT = "timed out"


def run_program(source: str, timeout: float = TIMEOUT) -> Outcome:
    """Run ``source`` in the sandbox for at most ``timeout`` seconds. What it prints is thrown away.

    Raises:
        EvaluationError: the sandbox cannot be set up here, with the reason. The program has not run then.
    """
    # What it writes when it gets to its end, and cannot know before: leaving early with status 0 is no pass.
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
        said = report.read()  # ends when the last of its processes has
    if timed_out:
        return Outcome.TIMED_OUT
    if not said.startswith(_READY):
        lines = complaint.decode(errors="replace").strip().splitlines() or ["it says nothing"]
        raise EvaluationError(f"programs cannot be run safely here, so none is: {lines[-1]}")
    return Outcome.PASSED if said == _READY + proof.encode() and launcher.returncode == 0 else Outcome.FAILED


@cache
def require_sandbox() -> None:
    """See that programs can be run here.

    Raises:
        EvaluationError: they cannot, with the reason.
    """
    if not sys.platform.startswith("linux"):
        raise EvaluationError(f"programs cannot be run safely on {sys.platform}, so none is: that takes Linux")
    if run_program("") is not Outcome.PASSED:
        raise EvaluationError(f"programs cannot be run here: in the sandbox, {sys.executable} does not start")
