"""The weight files of a model's folder: known to be there and whole before minutes are spent on reading them."""

import json
import re
from pathlib import Path

from safetensors import SafetensorError, safe_open

from steering_profiles.models.pointers import is_pointer, pointing, require_fetched

_KINDS = (".safetensors", ".bin", ".gguf")
_FORMS = ("model.safetensors", "pytorch_model.bin")
"""What transformers looks for, the first first: weights in one file, or an index of the pieces that they lie in."""
_PIECE = re.compile(r".*-(\d+)-of-(\d+)")


def check_weights(folder: Path) -> None:
    """See that there are weights in ``folder``, and that those which transformers would read are no broken files.

    Reads how each begins and looks at its size, no more.

    Raises:
        ValueError: there are none, or one is; the message names it.
    """
    if not weight_files(folder):
        raise ValueError("its folder holds no weights: download model.safetensors, or its pieces with their index, too")
    require_fetched(folder, "generation_config.json", "*.index.json")
    for file in _wanted(folder):
        wrong = damage(file)
        if wrong is not None:
            raise ValueError(wrong)


def weight_files(path: Path) -> list[Path]:
    """Return the files of weights in a folder; the file itself if it is one."""
    return sorted(file for file in (path.iterdir() if path.is_dir() else [path]) if file.suffix.lower() in _KINDS)


def piece_of(file: Path) -> tuple[int, int] | None:
    """Return which piece of how many a file of weights is by its name; None if it is no piece."""
    found = _PIECE.fullmatch(file.stem)
    return (int(found[1]), int(found[2])) if found else None


def damage(file: Path) -> str | None:
    """Say why a file of weights cannot be read, as far as a look at it tells; None where nothing is seen."""
    try:
        if is_pointer(file):
            return pointing(file)
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
    """Return the files that transformers would read; none where it is left to say so.

    Raises:
        ValueError: there are weights, but not as they are looked for.
    """
    for name in _FORMS:
        single, index = folder / name, folder / f"{name}.index.json"
        if single.is_file():
            return [single]
        if index.is_file():
            return _indexed(index)
    files = weight_files(folder)
    pieces = {file: piece for file in files if (piece := piece_of(file)) is not None}
    if pieces:
        file, (_, count) = min(pieces.items())
        form = _FORMS[file.suffix == ".bin"]
        raise ValueError(
            f"its weights are in {count} pieces, such as {file.name}, and {form}.index.json, which says what is in "
            "which, is missing: download it, and whatever piece is missing, too"
        )
    if all(file.suffix.lower() == ".gguf" for file in files):
        raise ValueError(f"its folder holds no weights but GGUF files: load one of those by itself: {files[0]}")
    return []


def _indexed(index: Path) -> list[Path]:
    """Return the files that an index names.

    Raises:
        ValueError: it cannot be read, or is damaged.
    """
    try:
        return sorted({index.parent / name for name in json.loads(index.read_text())["weight_map"].values()})
    except OSError as exc:
        raise ValueError(f"{index.name} cannot be read: {exc.strerror}") from exc
    except (AttributeError, LookupError, TypeError, ValueError) as exc:
        raise ValueError(f"{index.name} is damaged or cut off: {exc}") from exc
