"""Sets of characters, and the UTF-8 byte sequences that spell them."""

from collections.abc import Iterator, Sequence

Range = tuple[int, int]
"""Code points from the first to the second, both included."""

DIGITS: tuple[Range, ...] = ((0x30, 0x39),)
WORD: tuple[Range, ...] = ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A))
SPACE: tuple[Range, ...] = ((0x09, 0x0D), (0x20, 0x20))

_LAST = 0x10FFFF
_SURROGATES = (0xD800, 0xDFFF)  # no text has them
_LENGTHS = ((0x00, 0x7F), (0x80, 0x7FF), (0x800, 0xFFFF), (0x10000, _LAST))
"""Code points whose UTF-8 spellings have one, two, three and four bytes."""


def complement(ranges: Sequence[Range]) -> tuple[Range, ...]:
    """Return all characters that are in none of ``ranges``."""
    outside, start = [], 0
    for low, high in sorted([*ranges, _SURROGATES]):
        if start < low:
            outside.append((start, low - 1))
        start = max(start, high + 1)
    if start <= _LAST:
        outside.append((start, _LAST))
    return tuple(outside)


def byte_sequences(ranges: Sequence[Range]) -> Iterator[tuple[Range, ...]]:
    """Yield sequences of byte ranges that together spell exactly the characters of ``ranges``."""
    for low, high in ranges:
        for first, last in _LENGTHS:
            if max(low, first) <= min(high, last):
                yield from _spelled(max(low, first), min(high, last))


def _spelled(low: int, high: int) -> Iterator[tuple[Range, ...]]:
    """Spell code points whose spellings have the same length.

    A sequence of ranges stands for every combination of its bytes. So a range is split until, from the first byte that
    differs on, all continuation bytes are possible.
    """
    one, other = chr(low).encode("utf-8", "surrogatepass"), chr(high).encode("utf-8", "surrogatepass")
    for place in range(1, len(one)):
        below = (1 << 6 * place) - 1  # code points that differ in the last `place` bytes only
        if low & ~below != high & ~below:
            if low & below:
                yield from _spelled(low, low | below)
                yield from _spelled((low | below) + 1, high)
                return
            if high & below != below:
                yield from _spelled(low, (high & ~below) - 1)
                yield from _spelled(high & ~below, high)
                return
    yield tuple(zip(one, other, strict=True))
