"""Bytes and text of the tokens of a vocabulary."""

import copy
import re
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from steering_profiles.tokenization.prompts import added_before

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_PLAIN = re.compile(r"[A-Za-z]+")


class Vocabulary:
    """Bytes, text and spelling of the tokens of a tokenizer. Thread-safe.

    The kind of the tokenizer is determined by decoding examples: byte-level (GPT-2's map from bytes to characters),
    SentencePiece with ``<0xNN>`` for single bytes, or with spaces between words.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        # A copy, because a tokenizer must not be used by two threads at once.
        self._tokenizer = copy.deepcopy(tokenizer)
        self._lock = threading.Lock()
        self._is_byte_level = self._decoded(["Ġ"]) == " " and self._decoded(["Ã©"]) == "é"
        self.replaces_each_byte = not self._is_byte_level
        """Whether each byte outside of characters decodes to a U+FFFD, rather than each incomplete character."""
        added = self._tokenizer.added_tokens_decoder
        self._special = frozenset(self._tokenizer.all_special_ids) | {
            token for token, content in added.items() if content.special
        }
        self.opening: tuple[int, ...] = added_before(self._tokenizer)
        """Special tokens that the tokenizer adds before a text, which have no text of their own."""
        self._anchor = self._find_anchor()
        self._bytes: dict[int, bytes] = {}

    def is_special(self, token: int) -> bool:
        """Return whether a token is special, such as an end-of-text token, and left out of generated text."""
        return token in self._special

    def is_byte(self, token: int) -> bool:
        """Return whether a token is a single byte, spelled ``<0xNN>``."""
        return not self._is_byte_level and bool(_BYTE.fullmatch(self.spelling(token)))

    def text_of(self, token: int) -> str:
        r"""Return the text of a token for display. For special tokens and tokens without text it is their spelling.

        Bytes that are not whole characters are written as in OpenAI's API: ``bytes:\xf0\x9f``.
        """
        raw = self.bytes_of(token)
        if not raw or self.is_special(token):
            return self.spelling(token)
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{code:02x}" for code in raw)

    def spelling(self, token: int) -> str:
        """Return the spelling of a token in the vocabulary, or ``token_id:N`` if there is no token with this id."""
        with self._lock:
            piece = self._tokenizer.convert_ids_to_tokens(token)
        return piece if isinstance(piece, str) and piece else f"token_id:{token}"

    def bytes_of(self, token: int) -> bytes:
        """Return the bytes that a token adds inside a text; for a special token, its spelling.

        An id without a token, as in padded vocabularies, adds none.
        """
        found = self._bytes.get(token)
        if found is None:
            with self._lock:
                found = self._bytes[token] = self._find_bytes(token)
        return found

    def bytes_at_start(self, token: int) -> bytes:
        """Return the bytes of a token at the start of a text, often without the space that it adds inside a text."""
        raw = self.bytes_of(token)
        is_part = self.is_byte(token) and not raw.isascii()  # a part of a character
        if self._is_byte_level or self.is_special(token) or is_part:
            return raw
        with self._lock:
            piece = self._tokenizer.convert_ids_to_tokens(token)
            return self._decoded([piece]).encode(errors="replace") if isinstance(piece, str) else b""

    def _find_bytes(self, token: int) -> bytes:
        piece = self._tokenizer.convert_ids_to_tokens(token)
        if not isinstance(piece, str):
            return b""
        if self._is_byte_level:
            codes = [_BYTE_LEVEL.get(character) for character in piece]
            return piece.encode() if None in codes else bytes(code for code in codes if code is not None)
        if token in self._special:
            return piece.encode()
        single = _BYTE.fullmatch(piece)
        if single:
            code = int(single[1], 16)
            # In a vocabulary without byte tokens the same characters may be a word.
            return piece.encode() if self._decoded([piece]) == piece else bytes([code])
        return self._decoded([*self._anchor, piece])[len(self._decoded(self._anchor)) :].encode(errors="replace")

    def _decoded(self, pieces: Sequence[str]) -> str:
        return str(self._tokenizer.convert_tokens_to_string(list(pieces))) if pieces else ""

    def _find_anchor(self) -> list[str]:
        """Return a token, a plain word if possible, after which another token decodes as inside a text."""
        if self._is_byte_level:
            return []
        ordinary = [
            piece
            for piece, token in self._tokenizer.get_vocab().items()
            if token not in self._special and not _BYTE.fullmatch(piece) and self._decoded([piece]).strip()
        ]
        return sorted(ordinary, key=lambda piece: (not _PLAIN.fullmatch(piece), len(piece), piece))[:1]


def _byte_level_alphabet() -> dict[str, int]:
    """Return GPT-2's map from characters to bytes: printable bytes are themselves, others start at U+0100."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    moved = [code for code in range(256) if code not in printable]
    return {chr(code): code for code in printable} | {chr(256 + place): code for place, code in enumerate(moved)}


_BYTE_LEVEL = _byte_level_alphabet()
