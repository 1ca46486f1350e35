"""Reading of a data set's file, as JSON Lines or CSV."""

import codecs
import hashlib
from pathlib import Path

from steering_ab.datasets.csv_lines import csv_lines
from steering_ab.datasets.dataset import Dataset, collect
from steering_ab.datasets.json_lines import json_lines
from steering_ab.errors import DatasetError

MAX_FILE_BYTES = 256 * 2**20

_OTHER_ENCODINGS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_CSV = {".csv", ".tsv"}
_JSON = {".jsonl", ".ndjson", ".json"}


def read_dataset(path: str | Path) -> Dataset:
    """Read the data set in the file at ``path``; see docs/ab.md for its format.

    A file named ``.csv`` or ``.tsv`` is CSV, one named ``.jsonl``, ``.ndjson`` or ``.json`` JSON Lines. Any other file
    is JSON Lines if it starts with ``{``. Lines that cannot be used are the ``faults`` of the data set.

    Raises:
        DatasetError: the file cannot be read, or is neither.
    """
    path = Path(path)
    content = _content(path)
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    for mark, encoding in _OTHER_ENCODINGS.items():
        if content.startswith(mark):
            raise DatasetError(f"{path} is encoded in {encoding}; save it as UTF-8")
    content = content.removeprefix(codecs.BOM_UTF8)
    start = content[:4096].lstrip()
    if not content.strip():
        raise DatasetError(f"{path} is empty; a data set has an item on each line")
    if b"\0" in content[:4096]:
        raise DatasetError(f"{path} is not text; allowed: JSON Lines or CSV in UTF-8")
    suffix = path.suffix.lower()
    if suffix not in _CSV and start.startswith(b"["):
        raise DatasetError(f"{path} is one JSON array; write each of its objects on a line of its own (JSON Lines)")
    is_json = suffix in _JSON or (suffix not in _CSV and start.startswith(b"{"))
    lines = json_lines(content) if is_json else csv_lines(content, str(path))
    items, faults = collect(lines)
    return Dataset(path.name, items, faults, digest)


def _content(path: Path) -> bytes:
    """Return the content of a file.

    Raises:
        DatasetError: it cannot be read, or is too large.
    """
    try:
        if path.is_dir():
            raise DatasetError(f"{path} is a folder; give the path of a file in JSON Lines or CSV")
        if path.is_file() and path.stat().st_size > MAX_FILE_BYTES:
            size = path.stat().st_size / 2**20
            raise DatasetError(f"{path} has {size:.0f} MiB; allowed: {MAX_FILE_BYTES // 2**20} MiB")
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError as exc:
        raise DatasetError(f"there is no file {path}; give the path of a data set in JSON Lines or CSV") from exc
    except (OSError, ValueError) as exc:
        raise DatasetError(f"{str(path)!r} cannot be read: {getattr(exc, 'strerror', None) or exc}") from exc
    if len(content) > MAX_FILE_BYTES:
        raise DatasetError(f"{path} has more than {MAX_FILE_BYTES // 2**20} MiB, which are allowed")
    return content
