"""GGUF files: each is a whole model by itself, with config, tokenizer and chat template, or says what else it is."""

import json
import mmap
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from operator import itemgetter
from pathlib import Path
from typing import Any

from gguf import GGML_QUANT_SIZES
from gguf.constants import GGUF_DEFAULT_ALIGNMENT
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from steering_profiles.models import adapters
from steering_profiles.models.pointers import is_pointer, pointing
from steering_profiles.models.weights import piece_of
from steering_profiles.source import GGUF_SUFFIX, is_named_gguf

_MAGIC = b"GGUF"
_STRING, _ARRAY = 8, 9
_FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""How values that are neither strings nor arrays are kept, by the number of their type."""
_OTHERS = {
    "mmproj": "a projector of images or sound (mmproj), which belongs to a model",
    "imatrix": "an importance matrix, by which a model was quantised",
    "vocab": "a vocabulary alone",
    "controlvector": "a control vector, which belongs to a model",
}
"""By ``general.type``: what is no model."""
_UNTYPED = {"clip": "mmproj", "controlvector": "controlvector"}
"""By ``general.architecture``: what is no model."""
_SIZES = {int(kind): sizes for kind, sizes in GGML_QUANT_SIZES.items()}
"""How many values of each type of tensor are kept in how many bytes."""
_INSTEAD = "give the GGUF file of the model itself"


def is_gguf(file: Path) -> bool:
    """Return whether a file is a GGUF file, by its name or by how it begins.

    Raises:
        OSError: it cannot be read.
    """
    if is_named_gguf(file):
        return True
    with file.open("rb") as content:
        return content.read(len(_MAGIC)) == _MAGIC


def require_model(file: Path) -> None:
    """See that a GGUF file is a whole model, by its name and what it says of itself.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not; the message says what it is and what to do.
    """
    if is_pointer(file):
        raise ValueError(pointing(file))
    facts, tensors, end = _read_facts(file)
    # Older files have no type, but an architecture of their own.
    kind = facts.get("general.type") or _UNTYPED.get(facts.get("general.architecture", ""), "model")
    if kind == "adapter" or "adapter.type" in facts:
        raise ValueError(adapters.alone("a LoRA adapter", facts.get("general.base_model.0.name")))
    if kind != "model":
        raise ValueError(f"{file.name} is {_OTHERS.get(kind, f'of the type {kind}')}, not a model: {_INSTEAD}")
    said = facts.get("split.no", 0) + 1, facts.get("split.count", 1)
    number, count = max(piece_of(file) or said, said, key=itemgetter(1))
    if count > 1:
        raise ValueError(
            f"{file.name} is piece {number} of {count} of a model: join the pieces with `llama-gguf-split --merge`, "
            "and give the file that this makes"
        )
    if tensors == 0:
        raise ValueError(f"{file.name} is {_OTHERS['vocab']}, not a model: {_INSTEAD}")
    if file.stat().st_size < end:
        raise ValueError(_damaged(file))


def keep_listed(tokenizer: PreTrainedTokenizerBase, file: Path) -> None:
    """Take out of a tokenizer that transformers has made of a GGUF file what the file does not list.

    That is the end of text as GPT-2 writes it, for which a model of another family has no embedding.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no GGUF file, or a damaged one.
    """
    facts, _, _ = _read_facts(file)
    listed = facts.get("tokenizer.ggml.tokens", 0)
    if len(tokenizer) > listed:
        content = json.loads(tokenizer.backend_tokenizer.to_str())
        content["added_tokens"] = [token for token in content["added_tokens"] if token["id"] < listed]
        tokenizer._tokenizer = Tokenizer.from_str(json.dumps(content))


@contextmanager
def alone(file: Path) -> Iterator[Path]:
    """Provide a GGUF file in a folder that holds nothing else; return its path there.

    Given a GGUF file transformers looks beside it for a tokenizer and for adapters, and prefers what it finds.

    Raises:
        ValueError: no such folder can be made.
    """
    try:
        folder = tempfile.TemporaryDirectory(prefix="steering-server-")
    except OSError as exc:
        raise ValueError(f"a temporary folder cannot be made: {exc.strerror}; set TMPDIR to one that can be") from exc
    with folder as path:
        link = Path(path, f"{file.stem}{GGUF_SUFFIX}")
        link.symlink_to(file.absolute())
        yield link


def _read_facts(file: Path) -> tuple[dict[str, Any], int, int]:
    """Return what a file says of itself, of arrays their lengths alone, how many tensors it holds, and where they end.

    Raises:
        ValueError: it is no GGUF file, or a damaged one.
    """
    with file.open("rb") as content:
        if content.read(len(_MAGIC)) != _MAGIC:
            raise ValueError(f"{file.name} is no GGUF file, whatever its name says: download it again")
        with mmap.mmap(content.fileno(), 0, access=mmap.ACCESS_READ) as blob:
            try:
                return _Header(blob).read()
            except (ArithmeticError, LookupError, struct.error, ValueError) as exc:
                raise ValueError(_damaged(file)) from exc


def _damaged(file: Path) -> str:
    return f"{file.name} is damaged or cut off: download it again"


class _Header:
    """Reads the beginning of a GGUF file, value by value."""

    def __init__(self, blob: mmap.mmap) -> None:
        self._blob = blob
        self._at = len(_MAGIC)

    def read(self) -> tuple[dict[str, Any], int, int]:
        _, tensors, count = self._next("IQQ")
        facts: dict[str, Any] = {}
        for _ in range(count):
            key = self._string()
            facts[key] = self._value(*self._next("I"))
        length = max((self._tensor_end() for _ in range(tensors)), default=0)
        step = facts.get("general.alignment", GGUF_DEFAULT_ALIGNMENT)
        return facts, tensors, -(-self._at // step) * step + length

    def _tensor_end(self) -> int:
        """Read what is said of the next tensor; return where it ends, from the first one's beginning."""
        self._string()
        (dimensions,) = self._next("I")
        *sizes, kind, start = self._next("Q" * dimensions + "IQ")
        block, length = _SIZES.get(kind, (1, 0))  # of a type that is not known yet nothing is known to be missing
        return int(start + prod(sizes) // block * length)

    def _next(self, form: str) -> tuple[Any, ...]:
        values = struct.unpack_from(f"<{form}", self._blob, self._at)
        self._at += struct.calcsize(f"<{form}")
        return values

    def _string(self) -> str:
        (length,) = self._next("Q")
        self._at += length
        return self._blob[self._at - length : self._at].decode()

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY:
            return self._next(_FORMATS[kind])[0]
        of, count = self._next("IQ")
        if of in _FORMATS:
            self._at += count * struct.calcsize(f"<{_FORMATS[of]}")
        elif of == _STRING:
            for _ in range(count):
                (length,) = self._next("Q")
                self._at += length
        else:
            for _ in range(count):
                self._value(of)
        return count
