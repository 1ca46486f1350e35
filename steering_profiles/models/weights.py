"""The weight files of a model's folder: known to be there and whole before minutes are spent on reading them."""

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open

_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"


def check_weights(folder: Path) -> None:
    """See that every safetensors file that transformers would read from ``folder`` can be read and is not cut off.

    Reads how each begins and looks at its size, no more.

    Raises:
        ValueError: one cannot, or is; the message names it.
    """
    for file in _files(folder):
        try:
            # Of a file that may not be read safetensors says that it does not exist.
            with file.open("rb"), safe_open(file, framework="pt"):
                pass
        except OSError as exc:
            raise ValueError(f"{file.name} cannot be read: {exc.strerror}") from exc
        except SafetensorError as exc:
            raise ValueError(f"{file.name} is damaged or cut off: {exc}") from exc


def _files(folder: Path) -> list[Path]:
    single, index = folder / _WEIGHTS, folder / _INDEX
    if single.is_file():
        return [single]
    if not index.is_file():
        return []
    try:
        return sorted({folder / name for name in json.loads(index.read_text())["weight_map"].values()})
    except OSError as exc:
        raise ValueError(f"{_INDEX} cannot be read: {exc.strerror}") from exc
    except (AttributeError, LookupError, TypeError, ValueError) as exc:
        raise ValueError(f"{_INDEX} is damaged or cut off: {exc}") from exc
