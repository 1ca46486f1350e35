"""Options as a command line has them: which were given, and how they are written to make the same again."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import typer


class Option(NamedTuple):
    """An option, its value and what it is if nobody gives it."""

    name: str
    value: object
    default: object = None
    """A tuple, as the value, for an option that may be repeated."""


def given(options: Iterable[Option]) -> list[Option]:
    """Return those that are not at their defaults."""
    return [option for option in options if option.value != option.default]


def words(options: Iterable[Option]) -> Iterator[str]:
    """Yield the words that give ``options``; those at their defaults are left out."""
    for option in given(options):
        for value in option.value if isinstance(option.value, tuple) else (option.value,):
            yield from (option.name,) if value is True else (option.name, str(value))


def warn_renamed(old: str, new: str) -> None:
    """Warn on standard error that the option ``old``, which was given, is called ``new`` now."""
    typer.secho(f"warning: {old} is now called {new}", fg="yellow", err=True)
