"""A container's process: the image's command, user and variables, as process 1, on a read-only root file system."""

import os
import shlex
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import httpx

from tests.container.images import Image


@dataclass(frozen=True)
class Running:
    """A server in a container."""

    url: str
    root: Path
    environment: Mapping[str, str]
    outside: subprocess.Popen[bytes]
    """The process that made the container's namespaces; it ends as process 1 does."""
    pid: int
    """Process 1 of the container, as it is numbered out here."""
    log: IO[str]
    """Standard error of process 1."""

    def wait_for(self, path: str, seconds: float = 120) -> httpx.Response:
        """Return the first answer with status 200."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            assert self.outside.poll() is None, f"the container has ended: {self.written()}"
            try:
                response = httpx.get(f"{self.url}{path}")
                if response.status_code == 200:
                    return response
            except httpx.TransportError:
                pass
            time.sleep(0.02)
        raise AssertionError(f"{path} did not answer 200 within {seconds:.0f} s")

    def written(self) -> str:
        """Return all that it has written so far."""
        self.log.seek(0)
        return self.log.read()

    def status(self) -> dict[str, str]:
        """Return the kernel's record of process 1, by field."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return {key: value.strip() for key, value in (line.split(":", 1) for line in lines)}

    def is_healthy(self, image: Image) -> bool:
        """Run the image's health check in the container."""
        check = image.config["Healthcheck"]["Test"]
        assert check[0] == "CMD"
        inside = _inside(self.root, image.config["User"], self.environment, check[1:])
        return subprocess.run(inside, capture_output=True, timeout=30).returncode == 0


@contextmanager
def running(
    image: Image, root: Path, volumes: Mapping[str, Path], variables: Mapping[str, str] | None = None
) -> Iterator[Running]:
    """Run ``image``, unpacked at ``root``, with ``volumes`` (folders out here, by where they are inside)."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = image.environment | {"STEER_PORT": str(port), "STEER_INSECURE": "true"} | dict(variables or {})
    mounts = [
        *(f"mkdir -p {root}{target}" for target in volumes),
        f"mount --bind {root} {root}",
        f"mount -o remount,bind,ro {root}",
        f"mount -t tmpfs -o mode=1777 tmpfs {root}/tmp",
        f"mount -t proc proc {root}/proc",
        f"mount --rbind /dev {root}/dev",
        *(f"mount --bind {shlex.quote(str(source))} {root}{target}" for target, source in volumes.items()),
    ]
    command = shlex.join(_inside(root, image.config["User"], environment, image.command))
    namespaces = ["unshare", "--mount", "--pid", "--ipc", "--fork", "--kill-child"]
    with tempfile.TemporaryFile("w+") as log:
        outside = subprocess.Popen([*namespaces, "sh", "-c", " && ".join([*mounts, f"exec {command}"])], stderr=log)
        try:
            yield Running(f"http://127.0.0.1:{port}", root, environment, outside, _child_of(outside), log)
        finally:
            # --kill-child does not reach a process that has changed its user since, as the server has.
            for child in _children_of(outside):
                os.kill(child, signal.SIGKILL)
            outside.kill()
            outside.wait()


def _inside(root: Path, user: str, environment: Mapping[str, str], command: list[str]) -> list[str]:
    uid, _, gid = user.partition(":")
    drop = ["--clear-groups", "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"]
    variables = [f"{name}={value}" for name, value in environment.items()]
    who = ["/usr/bin/setpriv", f"--reuid={uid}", f"--regid={gid}", *drop]
    return ["chroot", str(root), *who, "/usr/bin/env", "-i", *variables, *command]


def _child_of(process: subprocess.Popen[bytes]) -> int:
    for _ in range(500):
        for child in _children_of(process):
            return child
        time.sleep(0.01)
    raise AssertionError("the container did not start")


def _children_of(process: subprocess.Popen[bytes]) -> list[int]:
    """Return the processes that ``process`` has started and not yet seen end; none once it has ended itself."""
    if process.poll() is not None:
        return []
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def make_volume(folder: Path, user: str) -> Path:
    """Make a folder that belongs to the image's user."""
    folder.mkdir()
    uid, _, gid = user.partition(":")
    os.chown(folder, int(uid), int(gid))
    return folder
