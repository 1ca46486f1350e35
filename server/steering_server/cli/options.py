"""Options of a command line: which of them differ from their defaults, and the words that give them again."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple


class Option(NamedTuple):
    """An option with its value and its default."""

    name: str
    value: object
    default: object = None
    """A tuple, as the value, for an option that may be repeated."""


def given(options: Iterable[Option]) -> list[Option]:
    """Return the options that differ from their defaults."""
    return [option for option in options if option.value != option.default]


def words(options: Iterable[Option]) -> Iterator[str]:
    """Yield the words that give ``options`` on a command line, without those at their defaults."""
    for option in given(options):
        for value in option.value if isinstance(option.value, tuple) else (option.value,):
            yield from (option.name,) if value is True else (option.name, str(value))
