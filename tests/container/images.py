"""Images built for real without a container engine: buildah with chroot isolation, on a base made by debootstrap."""

import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

BASE = "localhost/python:3.11-slim"
STORAGE = Path("/var/tmp/steering-server-containers")
_REPOSITORY = Path(__file__).parents[2]
_SUITE = "bookworm"  # Debian's release with Python 3.11
_NOT_IN_SLIM = ("usr/share/doc", "usr/share/man", "usr/share/locale", "var/lib/apt/lists", "var/cache/apt")


@dataclass(frozen=True)
class Image:
    """An image in the storage, with the settings that it is run by."""

    name: str
    config: dict[str, Any]
    layers: tuple[int, ...]
    """The size of each in bytes, the base's first."""

    @property
    def size(self) -> int:
        """Bytes of all layers."""
        return sum(self.layers)

    @property
    def environment(self) -> dict[str, str]:
        """The variables that its processes start with."""
        return dict(variable.split("=", 1) for variable in self.config["Env"])

    @property
    def command(self) -> list[str]:
        """The command that it runs by default."""
        return [*self.config["Entrypoint"], *self.config["Cmd"]]


def make_base() -> None:
    """Put a Debian with Python into the storage as the base image, unless it is there."""
    if subprocess.run(_buildah("inspect", "--type", "image", BASE), capture_output=True).returncode == 0:
        return
    container = _output("from", "scratch")
    try:
        root = Path(_output("mount", container))
        include = "--include=ca-certificates,python3,python3-venv"
        subprocess.run(["debootstrap", "--variant=minbase", include, _SUITE, str(root)], check=True, stdout=sys.stderr)
        for folder in _NOT_IN_SLIM:
            shutil.rmtree(root / folder, ignore_errors=True)
        (root / "etc/resolv.conf").unlink(missing_ok=True)
        _output("commit", "--format", "docker", container, BASE)
    finally:
        _output("rm", container)


def build(name: str, folder: Path, **arguments: str) -> Image:
    """Build ``docker/Dockerfile`` with build ``arguments``; packages come from where this machine's pip has them."""
    settings = _pip_settings()
    secret = folder / "pip.conf"
    secret.write_text("[global]\n" + "".join(f"{key} = {value}\n" for key, value in settings.items()))
    options = [f"--build-arg={key}={value}" for key, value in ({"BASE_IMAGE": BASE} | arguments).items()]
    options += [f"--volume={path}:{path}:ro" for path in _local_paths(settings)]
    command = _buildah("build", "--isolation", "chroot", "--layers", "--format", "docker", "--pull-never", *options)
    context = ["--secret", f"id=pip,src={secret}", "--file", "docker/Dockerfile", "--tag", name, "."]
    subprocess.run([*command, *context], check=True, cwd=_REPOSITORY, stdout=sys.stderr)
    return _inspect(name)


@contextmanager
def unpacked(image: Image) -> Iterator[Path]:
    """Yield the root folder of a container made of ``image``."""
    container = _output("from", "--pull-never", image.name)
    try:
        yield Path(_output("mount", container))
    finally:
        _output("rm", container)


def remove_all() -> None:
    """Remove every image but the base."""
    tagged = {name for image in json.loads(_output("images", "--json")) for name in image["names"] or ()}
    _output("rmi", "--force", *(tagged - {BASE}))
    _output("rmi", "--prune", "--force")


def _inspect(name: str) -> Image:
    found = json.loads(_output("inspect", "--type", "image", name))
    docker = found["Docker"]
    known = json.loads((STORAGE / "storage/vfs-layers/layers.json").read_text())
    sizes = {layer["diff-digest"]: layer["diff-size"] for layer in known if "diff-size" in layer}
    return Image(name, docker["config"], tuple(sizes[digest] for digest in docker["rootfs"]["diff_ids"]))


def _pip_settings() -> dict[str, str]:
    """Return pip's settings on this machine, from files and variables."""
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    settings: dict[str, str] = {}
    for line in sorted(listed.stdout.splitlines(), key=lambda line: line.startswith(":env:")):  # variables win
        name, _, value = line.partition("=")
        section, _, key = name.rpartition(".")
        if section in ("global", "install", ":env:"):
            settings[key] = " ".join(ast.literal_eval(value).split())
    return settings


def _local_paths(settings: dict[str, str]) -> Sequence[str]:
    """The files and folders that those settings name, which a build has to see too."""
    paths = set()
    for word in " ".join(settings.values()).split():
        url = urlsplit(word)
        if url.scheme == "file":
            paths.add(str(Path(url.path).parent))  # the files lie beside the index
        elif word.startswith("/") and os.path.exists(word):
            paths.add(word)
    return sorted(paths)


def _buildah(*arguments: str) -> list[str]:
    storage = ["--root", str(STORAGE / "storage"), "--runroot", str(STORAGE / "run"), "--storage-driver", "vfs"]
    return ["buildah", *storage, *arguments]


def _output(*arguments: str) -> str:
    done = subprocess.run(_buildah(*arguments), capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"buildah {arguments[0]} failed: {done.stderr}")
    return done.stdout.strip()
