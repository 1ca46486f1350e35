"""Generate the sync client from the async one: ``python client/generate_sync.py``; with ``--check``, only compare."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import unasync

PACKAGE = Path(__file__).parent / "steering_client"
SOURCE, TARGET = "async_client.py", "sync_client.py"
NAMES = {
    "AsyncSteeringClient": "SteeringClient",
    "AsyncClient": "Client",
    "AsyncBaseTransport": "BaseTransport",
    "aclosing": "closing",
    "aclose": "close",
    "aread": "read",
    "aiter_sse": "iter_sse",
}
HEADER = f"# Generated from {SOURCE} by client/generate_sync.py; change that one.\n"


def generate() -> str:
    """Return the source of the sync client."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, SOURCE), Path(folder, TARGET)
        shutil.copy(PACKAGE / SOURCE, source)
        unasync.unasync_files([str(source)], [unasync.Rule(SOURCE, TARGET, NAMES)])
        code = HEADER + target.read_text(encoding="utf-8")
    ruff = [str(Path(sys.executable).with_name("ruff")), "format", "--stdin-filename", str(PACKAGE / TARGET), "-"]
    return subprocess.run(ruff, input=code, capture_output=True, text=True, check=True).stdout


def main() -> None:
    """Write the sync client, or exit with status 1 if it is not up to date."""
    target, code = PACKAGE / TARGET, generate()
    if "--check" not in sys.argv:
        target.write_text(code, encoding="utf-8")
    elif target.read_text(encoding="utf-8") != code:
        sys.exit(f"{target} is not what {SOURCE} generates; run: make format")


if __name__ == "__main__":
    main()
