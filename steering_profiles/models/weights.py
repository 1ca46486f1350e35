"""Check of the weight files in a model's folder, before minutes are spent on reading them."""

import json
import re
from pathlib import Path

from safetensors import SafetensorError, safe_open

from steering_profiles.models.pointers import is_pointer, pointing, require_fetched

_KINDS = (".safetensors", ".bin", ".gguf")
_FILE_NAMES = ("model.safetensors", "pytorch_model.bin")
"""Files that transformers looks for, in this order: a file with all weights, or the index of its parts."""
_PART = re.compile(r".*-(\d+)-of-(\d+)")


def check_weights(folder: Path) -> None:
    """Check that ``folder`` has weights, and that the files that transformers would read are not damaged.

    Only the header and the size of each file are read.

    Raises:
        ValueError: there are no weights, or a file is damaged; the message names it.
    """
    if not weight_files(folder):
        raise ValueError("its folder has no weights: download model.safetensors, or its parts and their index")
    require_fetched(folder, "generation_config.json", "*.index.json")
    for file in _wanted(folder):
        wrong = damage(file)
        if wrong is not None:
            raise ValueError(wrong)


def weight_files(path: Path) -> list[Path]:
    """Return the weight files in a folder, or the file itself if ``path`` is one."""
    return sorted(file for file in (path.iterdir() if path.is_dir() else [path]) if file.suffix.lower() in _KINDS)


def part_of(file: Path) -> tuple[int, int] | None:
    """Return the part number and the number of parts from the name of a weights file; None if it is not a part."""
    found = _PART.fullmatch(file.stem)
    return (int(found[1]), int(found[2])) if found else None


def damage(file: Path) -> str | None:
    """Return a message about a weights file that cannot be read, from its header; None if nothing is wrong."""
    try:
        if is_pointer(file):
            return pointing(file)
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt"):
                pass
    except FileNotFoundError:
        return f"{file.name} is missing: download it"
    except OSError as exc:
        return f"{file.name} cannot be read: {exc.strerror}"
    except SafetensorError as exc:
        return f"{file.name} is damaged or incomplete: download it again ({exc})"
    return None


def _wanted(folder: Path) -> list[Path]:
    """Return the weight files that transformers would read; an empty list if the error is left to transformers.

    Raises:
        ValueError: there are weights, but not under a name that transformers looks for.
    """
    for name in _FILE_NAMES:
        single, index = folder / name, folder / f"{name}.index.json"
        if single.is_file():
            return [single]
        if index.is_file():
            return _indexed(index)
    files = weight_files(folder)
    parts = {file: part for file in files if (part := part_of(file)) is not None}
    if parts:
        file, (_, count) = min(parts.items())
        form = _FILE_NAMES[file.suffix == ".bin"]
        raise ValueError(
            f"its weights are in {count} parts, such as {file.name}, and their index, {form}.index.json, is missing: "
            "download it, and all parts that are missing"
        )
    if all(file.suffix.lower() == ".gguf" for file in files):
        raise ValueError(
            f"its folder has only GGUF files as weights; to load one of them, give the path of the file: {files[0]}"
        )
    return []


def _indexed(index: Path) -> list[Path]:
    """Return the files that an index names.

    Raises:
        ValueError: the index cannot be read, or is damaged.
    """
    try:
        return sorted({index.parent / name for name in json.loads(index.read_text())["weight_map"].values()})
    except OSError as exc:
        raise ValueError(f"{index.name} cannot be read: {exc.strerror}") from exc
    except (AttributeError, LookupError, TypeError, ValueError) as exc:
        raise ValueError(f"{index.name} is damaged or incomplete: {exc}") from exc
