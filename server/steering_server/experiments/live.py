"""The experiments of a running server: those that run now, kept in memory, and everything that is done with them."""

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import structlog

from steering_server.errors import Unavailable
from steering_server.experiments.assignment import Assigner
from steering_server.experiments.database import Database
from steering_server.experiments.definition import HEADER, Definition, State
from steering_server.experiments.exposure_ids import ExposureId, new_exposure_id
from steering_server.experiments.outcomes import Given, OutcomeStore, Stored
from steering_server.experiments.recorder import QUEUE, Recorder
from steering_server.experiments.report import Report, make_report
from steering_server.experiments.series import Point, make_series
from steering_server.experiments.store import Change, Experiment, Store

REFRESH_SECONDS = 2.0
"""Time after which a change that was made through another replica is seen."""
LEFT_OUT = ("no_unit", "arm_not_available", "arm_not_allowed")
"""Reasons for which an experiment cannot have a request that says nothing about steering."""
_FIRST_SECONDS = 3.0
_LAST_SECONDS = 5.0

_log = structlog.get_logger("steering_server.experiments")


@dataclass(frozen=True)
class Assignment:
    """The arm of a request, and the id of its exposure."""

    experiment: Experiment
    arm: str
    steering: str
    """What the arm applies, as an entry of ``arms`` in requests."""
    arm_index: int
    unit: bytes
    """Hash of the unit."""
    exposure: str


@dataclass(eq=False)
class Running:
    """An experiment that runs."""

    experiment: Experiment
    resolved: object | None = None
    """What its user has made of its arms, to be kept as long as the experiment does not change."""

    @cached_property
    def _assigner(self) -> Assigner:
        definition = self.experiment.definition
        return Assigner(definition.name, definition.salt, self.experiment.weights)

    def unit_of(self, user: str | None, headers: Mapping[str, str], opening: Callable[[], str]) -> str | None:
        """Return what is assigned to an arm, by a request's field ``user``, its headers or the beginning of its
        conversation; None if the request does not have it."""
        unit = self.experiment.definition.unit
        if unit == "user":
            return user or None
        return (headers.get(unit.removeprefix(HEADER)) if unit.startswith(HEADER) else opening()) or None

    def assign(self, unit: str) -> Assignment:
        """Return the arm of a unit, with a new exposure id."""
        given = unit.encode("utf-8", "surrogatepass")
        arm, hashed = self._assigner.arm_of(given), self._assigner.unit_hash(given)
        definition = self.experiment.definition
        index = definition.arm_names.index(arm)
        exposure = new_exposure_id(ExposureId(index, self.experiment.period, hashed), self.experiment.secret)
        return Assignment(self.experiment, arm, definition.arms[index].steering, index, hashed, exposure)


class Experiments:
    """Everything that is done with experiments.

    Requests are assigned by what is in memory, which a thread of its own keeps up to date: a database that cannot be
    reached holds up no request. The other methods wait for the database and are called in threads.
    """

    def __init__(self, database: Database, *, refresh_seconds: float = REFRESH_SECONDS, queue: int = QUEUE) -> None:
        self._database = database
        self._store = Store(database)
        self._outcomes = OutcomeStore(database)
        self.recorder = Recorder(database, queue=queue)
        self._refresh_seconds = refresh_seconds
        self._model = ""
        self._running: Mapping[str, Running] = {}
        self._everywhere: Running | None = None
        self._refreshing = threading.Lock()
        self._ended = threading.Event()
        self._has_read = threading.Event()
        self._refresher: threading.Thread | None = None
        self.outcomes_stored = 0
        """Outcomes stored by this replica."""
        self.left_out: Counter[str] = Counter(dict.fromkeys(LEFT_OUT, 0))
        """Requests that an experiment could not have, by the reason."""

    @property
    def where(self) -> str:
        """The database's URL without its password."""
        return self._database.where

    def open(self, model: str) -> None:
        """Begin to run the experiments on the model of this name.

        It returns when they have been read, or after a few seconds: a database that is away must not hold up a start.
        """
        self._model = model
        self._refresher = threading.Thread(target=self._keep_fresh, name="steering-experiments", daemon=True)
        self._refresher.start()
        self._has_read.wait(_FIRST_SECONDS)

    def close(self) -> None:
        """Store the exposures that are left, for a few seconds at most."""
        self._ended.set()
        self.recorder.close(_LAST_SECONDS)
        if self._refresher is not None:
            self._refresher.join(_LAST_SECONDS)
        self._database.close()

    @property
    def everywhere(self) -> Running | None:
        """The running experiment that has all requests without steering of their own, if any."""
        return self._everywhere

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the running experiments."""
        return tuple(self._running)

    def named(self, name: str) -> Running | None:
        """Return a running experiment by its name; None if there is none."""
        return self._running.get(name)

    def create(self, definition: Definition, weights: Mapping[str, float], by: str | None) -> Experiment:
        """See :meth:`.Store.create`."""
        return self._store.create(definition, weights, self._model, by)

    def find(self, name: str) -> Experiment:
        """See :meth:`.Store.find`."""
        return self._store.find(name)

    def all(self, state: State | None = None) -> Sequence[Experiment]:
        """See :meth:`.Store.all`."""
        return self._store.all(state)

    def history(self, experiment: Experiment) -> Sequence[Change]:
        """See :meth:`.Store.history`."""
        return self._store.history(experiment)

    def set_state(self, name: str, action: str, by: str | None) -> Experiment:
        """See :meth:`.Store.set_state`. The change holds for requests from now on."""
        return self._changed(lambda: self._store.set_state(name, action, by))

    def set_weights(self, name: str, weights: Mapping[str, float], by: str | None) -> Experiment:
        """See :meth:`.Store.set_weights`. The change holds for requests from now on."""
        return self._changed(lambda: self._store.set_weights(name, weights, by))

    def add_outcomes(self, name: str, given: Sequence[Given]) -> Stored:
        """See :meth:`.OutcomeStore.add`."""
        stored = self._outcomes.add(self._find_cached(name), given)
        self.outcomes_stored += stored.stored
        return stored

    def report(self, name: str) -> Report:
        """Compare the arms of an experiment by what is stored now, this replica's latest exposures included."""
        experiment = self._store.find(name)
        self.recorder.flush(_LAST_SECONDS)
        return make_report(self._database, experiment, self._store.periods(experiment))

    def series(self, name: str, points: int) -> list[Point]:
        """Return what was known of the primary outcome at ``points`` times up to the latest outcome."""
        return make_series(self._database, self._store.find(name), points)

    def _find_cached(self, name: str) -> Experiment:
        running = self._running.get(name)
        return running.experiment if running is not None else self._store.find(name)

    def _changed(self, change: Callable[[], Experiment]) -> Experiment:
        changed = change()
        self._refresh()
        return changed

    def _refresh(self) -> None:
        with self._refreshing:  # what was read first must not replace what was read later
            known = {one.experiment.name: one for one in self._running.values()}
            found: dict[str, Running] = {}
            for experiment in self._store.running(self._model):
                before = known.get(experiment.name)
                same = before is not None and before.experiment.version == experiment.version
                found[experiment.name] = before if same and before is not None else Running(experiment)
            self._running = found
            everywhere = (one for one in found.values() if one.experiment.definition.requests == "all")
            self._everywhere = next(everywhere, None)

    def _keep_fresh(self) -> None:
        while not self._ended.is_set():
            try:
                self._refresh()
            except Unavailable:
                pass  # it has been logged; what is known stays
            except Exception:  # any exception, so that later changes are still seen
                _log.exception("experiments_not_read")
            self._has_read.set()
            self._ended.wait(self._refresh_seconds)
