"""What every token stands for: the bytes that it adds to a text, and a name that tells it from every other token."""

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
    """The tokens of a tokenizer, one by one. Thread-safe.

    How a tokenizer writes its tokens is found out by asking it: byte-level ones (GPT-2's map from bytes to characters),
    those of SentencePiece with ``<0xNN>`` for single bytes, and those that put spaces between words.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        # Its own, since one is not to be used by two threads at once.
        self._tokenizer = copy.deepcopy(tokenizer)
        self._asking = threading.Lock()
        self._is_byte_level = self._written(["Ġ"]) == " " and self._written(["Ã©"]) == "é"
        self.replaces_each_byte = not self._is_byte_level
        """Whether each byte that is no part of a character counts as one U+FFFD, rather than each cut-off character."""
        added = self._tokenizer.added_tokens_decoder
        self._special = frozenset(self._tokenizer.all_special_ids) | {
            token for token, content in added.items() if content.special
        }
        self.opening: tuple[int, ...] = added_before(self._tokenizer)
        """What the tokenizer puts before every text, such as a token for its beginning. It has no text of its own."""
        self._anchor = self._find_anchor()
        self._bytes: dict[int, bytes] = {}

    def is_special(self, token: int) -> bool:
        """Whether a token marks something, such as the end of a text, and is left out of text that is generated."""
        return token in self._special

    def is_byte(self, token: int) -> bool:
        """Whether a token is a single byte under a name of its own, ``<0xNN>``."""
        return not self._is_byte_level and bool(_BYTE.fullmatch(self.spelling(token)))

    def text_of(self, token: int) -> str:
        r"""Return a token's text for people: that of a special one or of none is its spelling.

        Bytes that are no whole characters are written as OpenAI does: ``bytes:\xf0\x9f``.
        """
        raw = self.bytes_of(token)
        if not raw or self.is_special(token):
            return self.spelling(token)
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{code:02x}" for code in raw)

    def spelling(self, token: int) -> str:
        """Return how the vocabulary spells a token, or ``token_id:N`` where it has none of this id."""
        with self._asking:
            piece = self._tokenizer.convert_ids_to_tokens(token)
        return piece if isinstance(piece, str) and piece else f"token_id:{token}"

    def bytes_of(self, token: int) -> bytes:
        """Return the bytes that a token adds to a text which has begun; of a special one its spelling.

        An id without a token, as padded vocabularies have them, adds none.
        """
        found = self._bytes.get(token)
        if found is None:
            with self._asking:
                found = self._bytes[token] = self._find_bytes(token)
        return found

    def bytes_at_start(self, token: int) -> bytes:
        """Return the bytes of a text that begins with a token: often without the space that it adds elsewhere."""
        raw = self.bytes_of(token)
        is_part = self.is_byte(token) and not raw.isascii()  # of a character, and nothing by itself
        if self._is_byte_level or self.is_special(token) or is_part:
            return raw
        with self._asking:
            piece = self._tokenizer.convert_ids_to_tokens(token)
            return self._written([piece]).encode(errors="replace") if isinstance(piece, str) else b""

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
            # A vocabulary without such bytes may have the same characters as a word.
            return piece.encode() if self._written([piece]) == piece else bytes([code])
        return self._written([*self._anchor, piece])[len(self._written(self._anchor)) :].encode(errors="replace")

    def _written(self, pieces: Sequence[str]) -> str:
        return str(self._tokenizer.convert_tokens_to_string(list(pieces))) if pieces else ""

    def _find_anchor(self) -> list[str]:
        """Return a token, a plain word if there is one, after which another is written as it is inside a text."""
        if self._is_byte_level:
            return []
        ordinary = [
            piece
            for piece, token in self._tokenizer.get_vocab().items()
            if token not in self._special and not _BYTE.fullmatch(piece) and self._written([piece]).strip()
        ]
        return sorted(ordinary, key=lambda piece: (not _PLAIN.fullmatch(piece), len(piece), piece))[:1]


def _byte_level_alphabet() -> dict[str, int]:
    """Return GPT-2's map back from characters to bytes: printable ones stand for themselves, others are moved up."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    moved = [code for code in range(256) if code not in printable]
    return {chr(code): code for code in printable} | {chr(256 + place): code for place, code in enumerate(moved)}


_BYTE_LEVEL = _byte_level_alphabet()
