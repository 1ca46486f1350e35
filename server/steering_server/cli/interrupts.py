"""What an interrupted command says: what of its work is kept."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Interrupted(Exception):
    """Somebody has interrupted a command. The message says what is kept."""

    def __init__(self, kept: str = "nothing is kept") -> None:
        super().__init__(kept)


@contextmanager
def keeping(kept: Callable[[], str]) -> Iterator[None]:
    """Have an interrupt within the context say what is ``kept`` by then.

    Raises:
        Interrupted: there was one.
    """
    try:
        yield
    except KeyboardInterrupt as exc:
        raise Interrupted(kept()) from exc
