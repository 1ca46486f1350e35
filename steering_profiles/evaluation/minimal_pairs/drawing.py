"""Choices of words that are the same on every machine and in every version of Python."""

from collections.abc import Sequence
from hashlib import sha256
from typing import TypeVar

T = TypeVar("T")


class Draw:
    """The choices that make one pair: a hash of the phenomenon, of the pair's number and of the choice's place."""

    def __init__(self, phenomenon: str, number: int) -> None:
        self._seed = f"{phenomenon}/{number}"
        self._made = 0

    def one(self, options: Sequence[T]) -> T:
        """Return one of ``options``."""
        self._made += 1
        digest = sha256(f"{self._seed}/{self._made}".encode()).digest()
        return options[int.from_bytes(digest[:8], "big") % len(options)]

    def two(self, options: Sequence[T]) -> tuple[T, T]:
        """Return two different ones of ``options``."""
        first = self.one(options)
        return first, self.one([option for option in options if option != first])

    def flip(self) -> bool:
        """Return True or False."""
        return self.one((False, True))
