"""An interpreter that forks a process for every command line: what it has imported need not be imported again.

Run as ``python -m tests.cli.forking MODULE...``. Each line of its standard input is a :class:`CommandLine` as JSON; the
answer on standard output is the number of the process, and its exit status when it has ended.
"""

import atexit
import gc
import importlib
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

HEAVY = ("torch", "transformers", "accelerate", "tokenizers", "gguf")
"""Libraries that take seconds to import."""

TIMEOUT = 200
"""Seconds until a command is killed."""


@dataclass(frozen=True)
class CommandLine:
    """A command line of ``steer``."""

    arguments: Sequence[str]
    environment: dict[str, str]
    folder: str
    """Working folder."""
    without: Sequence[str]
    """Packages that are as if they were not installed."""
    output: str
    """Folder for its standard output, standard error and a list of the heavy libraries that it has loaded."""


def run(command: CommandLine) -> None:
    """Run a command line in this process, which ends with it."""
    signal.alarm(TIMEOUT)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored where a shell runs the tests in background
    output = Path(command.output)
    for stream, name in ((0, os.devnull), (1, "stdout"), (2, "stderr")):
        file = os.open(output / name, os.O_RDWR)  # joined to an absolute path, a path is that path
        os.dup2(file, stream)
        os.close(file)
    os.chdir(command.folder)
    os.environ.clear()
    os.environ.update(command.environment)
    sys.modules.update(dict.fromkeys(command.without))  # type: ignore[arg-type]  # None is how a package is hidden
    sys.argv = ["steer", *command.arguments]
    atexit.register(lambda: (output / "loaded").write_text(json.dumps([name for name in HEAVY if name in sys.modules])))
    from steering_server.cli import main

    main()


def as_line(command: CommandLine) -> str:
    return json.dumps(asdict(command)) + "\n"


if __name__ == "__main__":
    for module in sys.argv[1:]:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # else the collections of every process would copy all of its memory
    while line := sys.stdin.readline():
        child = os.fork()
        if child == 0:
            run(CommandLine(**json.loads(line)))
            sys.exit()
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
