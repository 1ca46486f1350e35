"""The weight files of a model's folder: known to be there and whole before minutes are spent on reading them."""

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open

_KINDS = (".safetensors", ".bin", ".gguf")
_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_POINTER = b"version https://git-lfs.github.com/spec/"


def check_weights(folder: Path) -> None:
    """See that there are weights in ``folder``, and that those which transformers would read are no broken files.

    Reads how each begins and looks at its size, no more.

    Raises:
        ValueError: there are none, or one is; the message names it.
    """
    if not weight_files(folder):
        raise ValueError("its folder holds no weights: download model.safetensors, or its pieces with their index, too")
    for file in _wanted(folder):
        wrong = damage(file)
        if wrong is not None:
            raise ValueError(wrong)


def weight_files(path: Path) -> list[Path]:
    """Return the files of weights in a folder; the file itself if it is one."""
    return sorted(file for file in (path.iterdir() if path.is_dir() else [path]) if file.suffix in _KINDS)


def damage(file: Path) -> str | None:
    """Say why a file of weights cannot be read, as far as a look at it tells; None where nothing is seen."""
    try:
        with file.open("rb") as content:
            if content.read(len(_POINTER)) == _POINTER:
                return (
                    f"{file.name} is not the weights but a pointer of Git LFS to them: fetch them with `git lfs pull`"
                )
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt"):
                pass
    except FileNotFoundError:
        return f"{file.name} is missing: download it too"
    except OSError as exc:
        return f"{file.name} cannot be read: {exc.strerror}"
    except SafetensorError as exc:
        return f"{file.name} is damaged or cut off: download it again ({exc})"
    return None


def _wanted(folder: Path) -> list[Path]:
    single, index = folder / _WEIGHTS, folder / _INDEX
    if single.is_file():
        return [single]
    if not index.is_file():
        return sorted(folder.glob("pytorch_model*.bin"))
    try:
        return sorted({folder / name for name in json.loads(index.read_text())["weight_map"].values()})
    except OSError as exc:
        raise ValueError(f"{_INDEX} cannot be read: {exc.strerror}") from exc
    except (AttributeError, LookupError, TypeError, ValueError) as exc:
        raise ValueError(f"{_INDEX} is damaged or cut off: {exc}") from exc
