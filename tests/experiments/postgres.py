"""A PostgreSQL of Debian's package on a socket in a folder of its own, run by a user who is not root."""

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

USERS = ("postgres", "nobody")
"""Users to run it as where the tests run as root; PostgreSQL refuses root."""
_FOLDER = Path("/usr/lib/postgresql")


def unavailable(reason: str) -> Any:
    """Skip the test with the reason, but fail in CI."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@dataclass
class Postgres:
    """A running PostgreSQL."""

    bin: Path
    folder: Path
    """Holds the data, the log and the socket."""
    user: str | None
    """Who runs it; None for who runs the tests."""

    def __post_init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def options(self) -> list[str]:
        """Options of its programs that say where it is."""
        return ["--host", str(self.folder), "--username", "steering"]

    def empty_database(self) -> str:
        """Empty the database and return its URL. A new one for every test would take a second each."""
        commands = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE pid <> pg_backend_pid() AND datname = current_database()",
            "DROP SCHEMA public CASCADE",
            "CREATE SCHEMA public",
        )
        words = [word for command in commands for word in ("--command", command)]
        self.run("psql", *self.options, "--dbname", "postgres", "--quiet", "--set", "ON_ERROR_STOP=1", *words)
        return f"postgresql://steering@/postgres?host={self.folder}"

    def run(self, program: str, *arguments: str) -> None:
        """Run one of its programs as its user."""
        subprocess.run([self.bin / program, *arguments], check=True, capture_output=True, timeout=120, **self._identity)

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = [
            str(self.bin / "postgres"), "-D", str(self.folder / "data"), "-k", str(self.folder),
            # After a failure the whole folder is synchronised, which takes long file by file.
            "-c", "recovery_init_sync_method=syncfs",
            "-c", "listen_addresses=", "-c", "shared_buffers=16MB", "-c", "max_connections=50", "-c", "autovacuum=off",
        ]  # fmt: skip
        log = (self.folder / "log").open("ab")
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd="/", **self._identity)
        self._process = process
        log.close()
        until = time.monotonic() + 60
        while time.monotonic() < until:
            assert process.poll() is None, (self.folder / "log").read_text()
            asked = [str(self.bin / "pg_isready"), *self.options, "--dbname", "postgres", "--quiet"]
            if subprocess.run(asked, timeout=10).returncode == 0:
                return
            time.sleep(0.05)
        raise AssertionError("PostgreSQL was not ready in time")

    def stop(self) -> None:
        """Stop it at once, as if the machine failed; it recovers at the next start."""
        if self._process is not None and self._process.poll() is None:
            self.run("pg_ctl", "stop", "-D", str(self.folder / "data"), "-m", "immediate")
            self._process.wait(30)

    @property
    def _identity(self) -> dict[str, Any]:
        if self.user is None:
            return {}
        entry = pwd.getpwnam(self.user)
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


@contextmanager
def postgres() -> Iterator[Postgres]:
    """Run a PostgreSQL. Without one the test is skipped, but fails in CI."""
    versions = sorted(_FOLDER.glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("postgres")
    if not versions and on_path is None:
        unavailable("PostgreSQL is not installed: apt-get install postgresql")
    binaries = versions[-1].parent if versions else Path(str(on_path)).parent
    user = next((user for user in USERS if _exists(user)), None) if os.getuid() == 0 else None
    if os.getuid() == 0 and user is None:
        unavailable(f"PostgreSQL does not run as root, and there is no user {' or '.join(USERS)}")
    # Not pytest's folder, which other users cannot read; and the path of a socket has at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="steering-pg-", dir="/tmp") as name:
        folder = Path(name)
        if user is not None:
            shutil.chown(folder, user)
        server = Postgres(binaries, folder, user)
        server.run("initdb", "-D", str(folder / "data"), "-U", "steering", "-A", "trust", "-E", "UTF8", "--locale=C")
        server.start()
        try:
            yield server
        finally:
            server.stop()


def _exists(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True
