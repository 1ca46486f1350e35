"""GGUF files, each of which has a whole model: weights, config, tokenizer and chat template."""

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
from steering_profiles.models.weights import part_of
from steering_profiles.source import GGUF_SUFFIX, is_named_gguf

_MAGIC = b"GGUF"
_STRING, _ARRAY = 8, 9
_FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Formats of the struct module for values that are neither strings nor arrays, by type number."""
_OTHERS = {
    "mmproj": "a projector for images or sound (mmproj) of a model",
    "imatrix": "an importance matrix for quantising a model",
    "vocab": "a vocabulary without weights",
    "controlvector": "a control vector for a model",
}
"""Descriptions of files that are not models, by ``general.type``."""
_UNTYPED = {"clip": "mmproj", "controlvector": "controlvector"}
"""Types of files without ``general.type`` that are not models, by ``general.architecture``."""
_SIZES = {int(kind): sizes for kind, sizes in GGML_QUANT_SIZES.items()}
"""Number of values and bytes of a block, by tensor type."""
_INSTEAD = "use the GGUF file of the model"


def is_gguf(file: Path) -> bool:
    """Return whether a file is a GGUF file, by its name or its first bytes.

    Raises:
        OSError: the file cannot be read.
    """
    if is_named_gguf(file):
        return True
    with file.open("rb") as content:
        return content.read(len(_MAGIC)) == _MAGIC


def require_model(file: Path) -> None:
    """Check that a GGUF file has a whole model, by its name and its metadata.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is something else; the message says what it is and what to do.
    """
    if is_pointer(file):
        raise ValueError(pointing(file))
    facts, tensors, end = _read_facts(file)
    # Older files have no type, but a special architecture.
    kind = facts.get("general.type") or _UNTYPED.get(facts.get("general.architecture", ""), "model")
    if kind == "adapter" or "adapter.type" in facts:
        raise ValueError(adapters.adapter_alone("a LoRA adapter", facts.get("general.base_model.0.name")))
    if kind != "model":
        raise ValueError(f"{file.name} is {_OTHERS.get(kind, f'a file of type {kind}')}, not a model: {_INSTEAD}")
    said = facts.get("split.no", 0) + 1, facts.get("split.count", 1)
    number, count = max(part_of(file) or said, said, key=itemgetter(1))
    if count > 1:
        raise ValueError(
            f"{file.name} is part {number} of {count} of a model: merge the parts with `llama-gguf-split --merge` and "
            "use the merged file"
        )
    if tensors == 0:
        raise ValueError(f"{file.name} is {_OTHERS['vocab']}, not a model: {_INSTEAD}")
    if file.stat().st_size < end:
        raise ValueError(_damaged(file))


def remove_unlisted_tokens(tokenizer: PreTrainedTokenizerBase, file: Path) -> None:
    """Remove tokens that transformers has added to the tokenizer of a GGUF file and that the file does not list.

    This is GPT-2's end-of-text token, for which a model of another family has no embedding.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not a GGUF file, or is damaged.
    """
    facts, _, _ = _read_facts(file)
    listed = facts.get("tokenizer.ggml.tokens", 0)
    if len(tokenizer) > listed:
        content = json.loads(tokenizer.backend_tokenizer.to_str())
        content["added_tokens"] = [token for token in content["added_tokens"] if token["id"] < listed]
        tokenizer._tokenizer = Tokenizer.from_str(json.dumps(content))


@contextmanager
def in_own_folder(file: Path) -> Iterator[Path]:
    """Provide a link to a GGUF file in a temporary folder that has no other files.

    In the folder of a GGUF file, transformers looks for a tokenizer and adapters and prefers these.

    Raises:
        ValueError: no temporary folder can be created.
    """
    try:
        folder = tempfile.TemporaryDirectory(prefix="steering-server-")
    except OSError as exc:
        raise ValueError(
            f"no temporary folder can be created: {exc.strerror}; set TMPDIR to a folder that can be written"
        ) from exc
    with folder as path:
        link = Path(path, f"{file.stem}{GGUF_SUFFIX}")
        link.symlink_to(file.absolute())
        yield link


def _read_facts(file: Path) -> tuple[dict[str, Any], int, int]:
    """Return the metadata of a file (for arrays their lengths), the number of its tensors, and the offset of their end.

    Raises:
        ValueError: it is not a GGUF file, or is damaged.
    """
    with file.open("rb") as content:
        if content.read(len(_MAGIC)) != _MAGIC:
            raise ValueError(f"{file.name} is not a GGUF file in spite of its name: download it again")
        with mmap.mmap(content.fileno(), 0, access=mmap.ACCESS_READ) as blob:
            try:
                return _Header(blob).read()
            except (ArithmeticError, LookupError, struct.error, ValueError) as exc:
                raise ValueError(_damaged(file)) from exc


def _damaged(file: Path) -> str:
    return f"{file.name} is damaged or incomplete: download it again"


class _Header:
    """Reader of the header of a GGUF file."""

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
        """Read the entry of the next tensor; return the offset of its end from the start of the first tensor."""
        self._string()
        (dimensions,) = self._next("I")
        *sizes, kind, start = self._next("Q" * dimensions + "IQ")
        block, length = _SIZES.get(kind, (1, 0))  # the size of an unknown type counts as 0
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
