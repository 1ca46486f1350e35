"""Use that API keys make of their limits."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from steering_server.access.keys import ApiKey
from steering_server.access.windows import MinuteWindow
from steering_server.errors import RateLimited

Clock = Callable[[], float]

_WEIGHT = 0.2  # of the latest request in the mean of their durations


@dataclass(eq=False)
class Reservation:
    """Tokens and sequences that a request has been granted."""

    sequences: int
    began: float
    prompt_tokens: int = 0
    completion_tokens: int = 0
    """Tokens generated so far."""
    is_void: bool = False
    """Whether the request was refused after all, so that nothing is charged."""


@dataclass
class Usage:
    """Use by one key. It outlives changes of the key's limits."""

    requests: MinuteWindow = field(default_factory=MinuteWindow)
    tokens: MinuteWindow = field(default_factory=MinuteWindow)
    open: list[Reservation] = field(default_factory=list)
    """The reservations of requests that have not ended."""
    mean_seconds: float | None = None
    """Mean duration of the latest requests; None before the first has ended."""

    @property
    def sequences(self) -> int:
        """Number of sequences that run or wait."""
        return sum(one.sequences for one in self.open)


@dataclass(frozen=True)
class Allowance:
    """What a key may use in a minute, and what is left of it."""

    limit: int
    left: int
    resets_in: float
    """Seconds until all of it is left again, if nothing more is used."""


class Meter:
    """Holds one key to its limits."""

    def __init__(self, key: ApiKey, usage: Usage, clock: Clock = time.monotonic) -> None:
        self._key = key
        self._usage = usage
        self._clock = clock

    @property
    def allowances(self) -> dict[str, Allowance]:
        """The key's limits of a minute, of ``requests`` and ``tokens``; only those that it has."""
        now, key, usage = self._clock(), self._key, self._usage
        limits = (
            ("requests", key.requests_per_minute, usage.requests),
            ("tokens", key.tokens_per_minute, usage.tokens),
        )
        return {
            what: Allowance(limit, max(0, limit - window.used(now)), window.until_unused(now))
            for what, limit, window in limits
            if limit is not None
        }

    def count_request(self) -> None:
        """Count one request.

        Raises:
            RateLimited: the key has made as many requests in the last minute as it may; this one is not counted.
        """
        now, limit, window = self._clock(), self._key.requests_per_minute, self._usage.requests
        if limit is None:
            return
        wait = window.wait(1, limit, now)
        if wait > 0:
            raise RateLimited(
                f"the API key {self._key.name} may make {limit} requests a minute and has made {window.used(now)}; "
                f"try again in {math.ceil(wait)} s",
                retry_after=wait,
            )
        window.charge(1, now)

    @contextmanager
    def reserve(self, sequences: int, prompt_tokens: int, completion_tokens: int | None) -> Iterator[Reservation]:
        """Grant a request ``sequences`` and its tokens until the end of this context.

        ``completion_tokens`` is the most that the request can generate. It is charged at once, and corrected at the
        end by what was generated. If it is None, because the client did not limit it, all tokens that are left in
        this minute are charged.

        Raises:
            RateLimited: the key has not as many left.
        """
        now, usage = self._clock(), self._usage
        self._require_sequences(sequences, now)
        needed = prompt_tokens + (sequences if completion_tokens is None else completion_tokens)
        limit = self._key.tokens_per_minute
        if limit is not None:
            self._require_tokens(needed, limit, now)
            if completion_tokens is None:
                needed = max(needed, limit - usage.tokens.used(now))
        charge = usage.tokens.charge(needed, now) if limit is not None else None
        reservation = Reservation(sequences, now, prompt_tokens)
        usage.open.append(reservation)
        try:
            yield reservation
        finally:
            usage.open.remove(reservation)
            now = self._clock()
            if charge is not None:
                used = 0 if reservation.is_void else reservation.prompt_tokens + reservation.completion_tokens
                usage.tokens.correct(charge, used, now)
            if not reservation.is_void:
                seconds = now - reservation.began
                mean = usage.mean_seconds
                usage.mean_seconds = seconds if mean is None else (1 - _WEIGHT) * mean + _WEIGHT * seconds

    def _require_sequences(self, sequences: int, now: float) -> None:
        limit, usage = self._key.max_sequences, self._usage
        if limit is None or usage.sequences + sequences <= limit:
            return
        allowed = f"the API key {self._key.name} may have {limit} sequences at once"
        if sequences > limit:
            raise RateLimited(f"{allowed}, and this request has {sequences}", retry_after=None)
        wait = self._until_ended(usage.sequences + sequences - limit, now)
        raise RateLimited(
            f"{allowed}, has {usage.sequences}, and this request would add {sequences}; "
            f"try again in {math.ceil(wait)} s",
            retry_after=wait,
        )

    def _require_tokens(self, needed: int, limit: int, now: float) -> None:
        allowed = f"the API key {self._key.name} may use {limit} tokens a minute, prompts and completions together"
        if needed > limit:
            raise RateLimited(f"{allowed}, and this request can use {needed}", retry_after=None)
        wait = self._usage.tokens.wait(needed, limit, now)
        if wait > 0:
            left = max(0, limit - self._usage.tokens.used(now))
            raise RateLimited(
                f"{allowed}; {left} are left and this request can use {needed}; try again in {math.ceil(wait)} s",
                retry_after=wait,
            )

    def _until_ended(self, sequences: int, now: float) -> float:
        """Return an estimate of the seconds until this many of the key's sequences have ended.

        A request is expected to take as long as the latest ones did, or twice as long as it has already.
        """
        mean = self._usage.mean_seconds
        ends = []
        for one in self._usage.open:
            elapsed = now - one.began
            remaining = mean - elapsed if mean is not None and elapsed < mean else elapsed
            ends.append((remaining, one.sequences))
        for remaining, ended in sorted(ends):
            sequences -= ended
            if sequences <= 0:
                return max(1.0, remaining)
        return 1.0
