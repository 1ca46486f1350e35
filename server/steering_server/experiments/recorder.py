"""Storing of exposures, off the path of requests."""

import threading
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy import insert
from sqlalchemy.exc import SQLAlchemyError

from steering_server.errors import Unavailable
from steering_server.experiments.database import Database
from steering_server.experiments.exposures import Exposure
from steering_server.experiments.tables import exposures, lost_exposures

QUEUE = 10_000
"""Exposures that can wait to be stored."""
BATCH = 500
"""Exposures that are stored in one transaction."""
PAUSE_SECONDS = 0.25
"""Time for which exposures are gathered before they are stored together."""
_LONGEST_PAUSE_SECONDS = 5.0

_log = structlog.get_logger("steering_server.experiments")


@dataclass(frozen=True)
class RecorderCounts:
    """What a recorder has done so far."""

    queued: int
    """Exposures that wait now."""
    stored: int
    lost: int
    """Exposures that were dropped because the queue was full, or that could not be stored before the end."""


class Recorder:
    """A bounded queue of exposures and the thread that stores them in batches.

    :meth:`record` takes microseconds and never waits or fails. While the database cannot be reached the thread keeps
    trying; when the queue is full, exposures are dropped and counted, and the counts are stored with the next batch.
    """

    def __init__(self, database: Database, *, queue: int = QUEUE) -> None:
        self._database = database
        self._most = queue
        self._queue: deque[Exposure] = deque()
        self._unreported: Counter[int] = Counter()  # lost exposures by experiment
        self._lock = threading.Lock()
        self._wake = threading.Condition(self._lock)
        self._is_closing = False
        self._is_asked = False
        self._stored = self._lost = self._taken = 0
        self._thread: threading.Thread | None = None

    def record(self, exposure: Exposure) -> None:
        """Queue an exposure; may be called from any thread."""
        with self._lock:
            if len(self._queue) + self._taken >= self._most or self._is_closing:
                self._lose(exposure.experiment_id, 1)
                return
            self._queue.append(exposure)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="steering-exposures", daemon=True)
                self._thread.start()
            elif len(self._queue) == 1 or len(self._queue) == BATCH:
                self._wake.notify_all()

    def counts(self) -> RecorderCounts:
        """Return what was done so far."""
        with self._lock:
            return RecorderCounts(len(self._queue) + self._taken, self._stored, self._lost)

    def flush(self, seconds: float) -> bool:
        """Store what is queued now, for at most ``seconds``; return whether all of it is stored."""
        until = time.monotonic() + seconds
        with self._lock:
            target = self._stored + self._lost + len(self._queue) + self._taken
            self._is_asked = True
            self._wake.notify_all()
            while self._stored + self._lost < target:
                left = until - time.monotonic()
                if left <= 0 or self._thread is None:
                    return False
                self._wake.wait(left)
        return True

    def close(self, seconds: float) -> None:
        """Store what is left, for at most ``seconds``, and end the thread. What is not stored is lost."""
        self.flush(seconds)
        with self._lock:
            self._is_closing = True
            left = len(self._queue) + self._taken
            self._wake.notify_all()
            thread = self._thread
        if left:
            _log.error("exposures_lost", number=left, reason="the database could not be reached before the end")
        if thread is not None:
            thread.join(1.0)  # it may wait for the database for longer, and is a daemon

    def _lose(self, experiment_id: int, number: int) -> None:
        if not self._lost:
            _log.warning("exposures_lost", reason="the queue is full", queue=self._most)
        self._lost += number
        self._unreported[experiment_id] += number

    def _run(self) -> None:
        pause = PAUSE_SECONDS
        batch: list[Exposure] = []
        while True:
            with self._lock:
                if not batch:
                    while not self._queue and not self._is_closing:
                        self._wake.wait()
                    self._wait(PAUSE_SECONDS)
                    batch = [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
                    self._taken = len(batch)
                    lost, self._unreported = self._unreported, Counter()
                else:
                    self._wait(pause, even_if_full=True)
                if self._is_closing and not self._queue and not batch:
                    return
                self._is_asked = False
            try:
                stored = self._store(batch, lost)
            except Unavailable:
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
                if self._is_closing:
                    return
                continue
            with self._lock:
                self._stored += stored
                if stored < len(batch):
                    self._lost += len(batch) - stored
                self._taken, batch, pause = 0, [], PAUSE_SECONDS
                self._wake.notify_all()

    def _wait(self, seconds: float, *, even_if_full: bool = False) -> None:
        until = time.monotonic() + seconds
        while not self._is_closing and not self._is_asked and (even_if_full or len(self._queue) < BATCH):
            left = until - time.monotonic()
            if left <= 0:
                return
            self._wake.wait(left)

    def _store(self, batch: Sequence[Exposure], lost: Mapping[int, int]) -> int:
        """Store a batch; return how many of it are stored. A row that the database refuses does not take the others
        with it."""
        rows, at = [exposure.row() for exposure in batch], time.time()
        counts = [{"experiment_id": id_, "at": at, "number": number} for id_, number in lost.items()]
        try:
            with self._database.writing() as connection:
                self._database.insert_new(connection, exposures, rows)
                if counts:
                    connection.execute(insert(lost_exposures), counts)
            return len(rows)
        except SQLAlchemyError as exc:
            _log.error("exposures_refused", number=len(rows), reason=type(exc).__name__)
            with self._lock:
                self._unreported.update(lost)  # to be stored with the next batch
        stored = 0
        for row in rows:
            try:
                with self._database.writing() as connection:
                    self._database.insert_new(connection, exposures, [row])
                stored += 1
            except SQLAlchemyError as exc:
                _log.error("exposure_refused", exposure=row["id"], reason=type(exc).__name__)
        return stored
