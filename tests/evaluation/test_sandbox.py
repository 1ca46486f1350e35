"""Programs in the sandbox can compute and cannot reach anything else."""

import os
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from steering_profiles.errors import EvaluationError
from steering_profiles.evaluation import sandbox
from steering_profiles.evaluation.sandbox import Outcome, run_program

pytestmark = pytest.mark.usefixtures("sandboxed")


def passes(source: str, timeout: float = 20.0) -> bool:
    return run_program(textwrap.dedent(source), timeout) is Outcome.PASSED


def runs_outside(source: str) -> bool:
    """Return whether the program passes outside the sandbox."""
    return subprocess.run([sys.executable, "-c", textwrap.dedent(source)], capture_output=True).returncode == 0


def processes_that_mention(marker: str) -> list[str]:
    """Return the command lines of processes on this machine that contain ``marker``."""
    lines = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(file.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue  # it has ended
    return [line for line in lines if marker in line]


def test_a_correct_program_passes_and_may_use_the_standard_library():
    assert passes(
        """
        import collections, decimal, hashlib, math, random, re, statistics
        assert collections.Counter("abca")["a"] == 2 and math.gcd(12, 18) == 6
        assert hashlib.md5(b"x").hexdigest().startswith("9dd4")
        open("note.txt", "w").write("its own folder is its own")
        assert open("note.txt").read().startswith("its own")
        print("x" * 10_000_000)
        """
    )


@pytest.mark.parametrize(
    "source", ["assert 1 == 2", "def f(:", "import sys; sys.exit(0)", "import os; os._exit(0)", "'''never closed"]
)
def test_a_program_that_does_not_reach_its_end_fails(source: str):
    assert run_program(source) is Outcome.FAILED


def test_hashes_of_text_are_the_same_in_every_run():
    assert len({run_program("assert hash('text') & 1") for _ in range(8)}) == 1


def test_an_endless_loop_is_stopped_in_time():
    begun = time.monotonic()
    assert run_program("while True: pass", timeout=1.5) is Outcome.TIMED_OUT
    assert time.monotonic() - begun < 6


def test_a_program_that_sleeps_and_ignores_signals_is_stopped_in_time():
    source = """
        import signal, time
        for number in set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_IGN)
        time.sleep(60)
        """
    assert run_program(textwrap.dedent(source), timeout=1.5) is Outcome.TIMED_OUT


def test_memory_is_limited():
    source = "block = bytearray({} << 20)"
    assert passes(source.format(300))
    assert runs_outside(source.format(1100))
    assert not passes(source.format(1100))


def test_files_are_limited():
    source = "open('big', 'wb').write(bytes({} << 20))"
    assert passes(source.format(10))
    assert not passes(source.format(20))


def test_a_program_has_no_network():
    with socket.create_server(("127.0.0.1", 0)) as server:
        source = f"import socket; socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), timeout=3)"
        assert runs_outside(source)
        assert not passes(source)


def test_a_background_process_does_not_outlive_its_program():
    marker = f"steer-marker-{os.getpid()}-background"
    source = f"""
        import os, subprocess, sys, time
        child = subprocess.Popen(
            [sys.executable, "-c", "import time; time.sleep(60)", "{marker}"], start_new_session=True
        )
        time.sleep(0.5)
        assert child.poll() is None
        """
    assert passes(source), "the child must be running when the program ends"
    assert processes_that_mention(marker) == []


def test_a_fork_bomb_is_limited_and_leaves_nothing():
    marker = f"steer-marker-{os.getpid()}-bomb"
    limited = f"""
        import os, subprocess, sys
        command = [sys.executable, "-c", "import time; time.sleep(60)", "{marker}"]
        children = []
        try:
            while len(children) < 50:
                children.append(subprocess.Popen(command, start_new_session=True))
        except OSError:
            pass
        assert 1 <= len(children) < 10
        """
    assert passes(limited)
    endless = """
        import os
        while True:
            try:
                os.fork()
            except OSError:
                pass
        """
    assert run_program(textwrap.dedent(endless), timeout=2) is Outcome.TIMED_OUT
    assert processes_that_mention(marker) == processes_that_mention("program.py") == []


def test_other_processes_cannot_be_seen_or_stopped():
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        assert not passes(f"import os; os.kill({other.pid}, 9)")
        assert not passes(f"import os; os.listdir('/proc/{other.pid}')")
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_a_program_writes_only_to_its_own_folder(tmp_path: Path):
    target = tmp_path / "written.txt"
    target.write_text("before")
    for path in (target, tmp_path / "new.txt", Path(os.__file__), Path("/usr/written.txt")):
        run_program(f"open({str(path)!r}, 'a').write('x')")
    assert target.read_text() == "before"
    assert not (tmp_path / "new.txt").exists()
    assert not Path("/usr/written.txt").exists()
    assert not Path(os.__file__).read_text().endswith("x")
    assert passes("import os; assert all(os.statvfs(f).f_flag & os.ST_RDONLY for f in ('/usr', os.__file__))")


def test_the_users_files_cannot_be_read(tmp_path: Path):
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    source = f"assert open({str(secret)!r}).read() == 'secret'"
    assert runs_outside(source)
    assert not passes(source)
    assert passes("import os; assert not os.path.exists('/etc/passwd')")
    assert passes("import os; assert set(os.environ) <= {'PYTHONHASHSEED', 'LC_CTYPE'}")


def test_a_program_has_no_privileges_and_cannot_get_any():
    assert passes(
        """
        import ctypes, os
        libc = ctypes.CDLL(None, use_errno=True)
        assert os.getuid() == 1000
        assert libc.mount(b"tmpfs", b"/usr", b"tmpfs", 0, None) == -1
        assert libc.unshare(0x10000000) == -1, "a user namespace of its own would give it all privileges in there"
        """
    )


def test_a_program_is_not_run_if_the_sandbox_cannot_be_set_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    launcher = Path(sandbox.__file__).with_name("sandbox_launcher.py").read_text()
    asks_for_nonsense = tmp_path / "launcher.py"
    asks_for_nonsense.write_text(launcher.replace("CLONE_NEWNET = 0x10000000", "CLONE_NEWNET = 0x1"))
    monkeypatch.setattr(sandbox, "_LAUNCHER", asks_for_nonsense)
    with pytest.raises(EvaluationError, match=r"cannot be run in a sandbox here, so none is run: .*new namespaces"):
        run_program("pass")
