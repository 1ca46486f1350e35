"""Time until the queue has room: an estimate from the sequences that finished lately."""

from collections import deque

_REMEMBERED = 64  # sequences
_LEAST_SECONDS = 0.1


class Backlog:
    """The rate at which sequences finish. Times are seconds of one clock."""

    def __init__(self) -> None:
        self._finished: deque[float] = deque(maxlen=_REMEMBERED)
        self._busy_since: float | None = None
        self._next_promise = 0.0

    def work_began(self, now: float) -> None:
        """Record that sequences run again after a pause."""
        self._busy_since = now
        self._finished.clear()

    def finished(self, now: float) -> None:
        """Record that a sequence finished."""
        self._finished.append(now)

    def wait(self, sequences: int, running: int, now: float) -> float:
        """Return the seconds until this many sequences will probably have finished.

        Before the first one has, the ``running`` ones are expected to take as long again as they have run.
        """
        return sequences / self._rate(running, now)

    def promise(self, sequences: int, running: int, now: float, *, most: float) -> float:
        """Return the seconds after which a request of so many sequences, which finds no room now, should come again.

        Requests that were refused before are expected to come back first, each when it was told to, so that not all
        come back at once. ``most`` is the number of seconds that nobody is made to wait for them beyond.
        """
        wait = self.wait(sequences, running, now)
        at = min(max(now, self._next_promise) + wait, now + max(wait, most))
        self._next_promise = at
        return at - now

    def _rate(self, running: int, now: float) -> float:
        """Return the number of sequences that finish in a second."""
        since = now if self._busy_since is None else self._busy_since
        if len(self._finished) == _REMEMBERED:
            since = self._finished[0]
        return (len(self._finished) or max(running, 1)) / max(now - since, _LEAST_SECONDS)
