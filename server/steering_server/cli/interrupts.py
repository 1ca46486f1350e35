"""Interrupts of a command (Ctrl-C): the message says which results are kept."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Interrupted(Exception):
    """An interrupt of a command. The message says which results are kept."""

    def __init__(self, kept: str = "no results are saved") -> None:
        super().__init__(kept)


@contextmanager
def report_saved(kept: Callable[[], str]) -> Iterator[None]:
    """Turn an interrupt inside the context into :class:`Interrupted`, with the message that ``kept`` returns.

    Raises:
        Interrupted: the user interrupted the command.
    """
    try:
        yield
    except KeyboardInterrupt as exc:
        raise Interrupted(kept()) from exc
