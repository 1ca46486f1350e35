"""Experiments in the database: definitions, states and weights, with every change that was made of them."""

import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update
from sqlalchemy.exc import IntegrityError

from steering_server.errors import Conflict, NotFound, RequestError
from steering_server.experiments.database import Database
from steering_server.experiments.definition import NAME, Definition, State, check_definition, check_weights
from steering_server.experiments.tables import changes, experiments, periods

_SECRET_BYTES = 32
_ALLOWED: dict[str, tuple[State, tuple[State, ...]]] = {
    "start": ("running", ("draft", "stopped")),
    "stop": ("stopped", ("running",)),
    "archive": ("archived", ("draft", "stopped")),
}


@dataclass(frozen=True)
class Change:
    """One change of an experiment: when, by whom (the name of an API key) and what."""

    at: float
    by: str | None
    action: str
    details: Mapping[str, Any]


@dataclass(frozen=True)
class Experiment:
    """An experiment as it is at one moment."""

    id: int
    definition: Definition
    model: str
    """The served name of the model whose requests it has."""
    state: State
    weights: Mapping[str, float]
    """Weights of the arms by name, in the arms' order."""
    period: int
    """Number of the weights; every change of them begins a new period."""
    version: int
    created_at: float
    secret: bytes = field(repr=False)

    @property
    def name(self) -> str:
        """Its name."""
        return self.definition.name


class Store:
    """Reads and changes experiments."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, definition: Definition, weights: Mapping[str, float], model: str, by: str | None) -> Experiment:
        """Add an experiment, which does not run yet.

        Raises:
            RequestError: the definition or the weights are not valid.
            Conflict: there is one of this name.
        """
        check_definition(definition)
        normalised = check_weights(weights, definition.arm_names, "arms")
        at = time.time()
        row = {
            "name": definition.name,
            "model": model,
            "state": "draft",
            "requests": definition.requests,
            "definition": definition.as_json(),
            "secret": secrets.token_bytes(_SECRET_BYTES),
            "period": 1,
            "version": 1,
            "created_at": at,
        }
        try:
            with self._database.writing() as connection:
                made = connection.execute(insert(experiments).values(row)).inserted_primary_key
                id_ = int(made[0]) if made is not None else 0
                connection.execute(insert(periods).values(_period(id_, 1, normalised, at)))
                _note(connection, id_, at, by, "create", {"weights": normalised})
                return _find(connection, definition.name)
        except IntegrityError as exc:
            raise Conflict(
                f"name: there is an experiment {definition.name} already; names are never used again",
                param="name",
                code="experiment_exists",
            ) from exc

    def find(self, name: str) -> Experiment:
        """Return an experiment.

        Raises:
            NotFound: there is none of this name.
        """
        if not self._database.is_there:
            raise _not_found(name)
        with self._database.reading() as connection:
            return _find(connection, name)

    def all(self, state: State | None = None) -> list[Experiment]:
        """Return all experiments, or those in a state, the newest first."""
        if not self._database.is_there:
            return []
        query = _query().order_by(experiments.c.id.desc())
        with self._database.reading() as connection:
            rows = connection.execute(query if state is None else query.where(experiments.c.state == state))
            return [_experiment(row) for row in rows]

    def running(self, model: str) -> list[Experiment]:
        """Return the experiments that run on the model of this name."""
        if not self._database.is_there:
            return []
        query = _query().where(experiments.c.state == "running", experiments.c.model == model)
        with self._database.reading() as connection:
            return [_experiment(row) for row in connection.execute(query.order_by(experiments.c.id))]

    def history(self, experiment: Experiment) -> list[Change]:
        """Return all changes of an experiment, the first one first."""
        query = select(changes).where(changes.c.experiment_id == experiment.id).order_by(changes.c.id)
        with self._database.reading() as connection:
            return [Change(row.at, row.changed_by, row.action, row.details) for row in connection.execute(query)]

    def periods(self, experiment: Experiment) -> dict[int, Mapping[str, float]]:
        """Return the weights of every period."""
        query = select(periods).where(periods.c.experiment_id == experiment.id).order_by(periods.c.number)
        with self._database.reading() as connection:
            return {row.number: row.weights for row in connection.execute(query)}

    def set_state(self, name: str, action: str, by: str | None) -> Experiment:
        """Start, stop or archive an experiment.

        Raises:
            NotFound: there is none of this name.
            Conflict: its state does not allow it, or another experiment has all requests already.
        """
        state, allowed = _ALLOWED[action]
        try:
            with self._database.writing() as connection:
                found = _find(connection, name)
                if found.state not in allowed:
                    raise Conflict(
                        f"experiment {name} is {found.state}; only one that is {' or '.join(allowed)} can be "
                        f"{ {'start': 'started', 'stop': 'stopped', 'archive': 'archived'}[action] }",
                        code="experiment_state",
                    )
                self._change(connection, found, {"state": state})
                _note(connection, found.id, time.time(), by, action, {})
                return _find(connection, name)
        except IntegrityError as exc:
            raise self._has_all_requests(name) from exc

    def set_weights(self, name: str, weights: Mapping[str, float], by: str | None) -> Experiment:
        """Change the weights of an experiment's arms, which begins a new period.

        Raises:
            NotFound: there is none of this name.
            RequestError: the weights are not valid.
            Conflict: the experiment is archived.
        """
        with self._database.writing() as connection:
            found = _find(connection, name)
            if found.state == "archived":
                raise Conflict(f"experiment {name} is archived; its weights cannot be changed", code="experiment_state")
            normalised = check_weights(weights, found.definition.arm_names)
            at, number = time.time(), found.period + 1
            if number > _MOST_PERIODS:
                raise RequestError(
                    f"weights: were changed {found.period} times; make a new experiment", param="weights"
                )
            self._change(connection, found, {"period": number})
            connection.execute(insert(periods).values(_period(found.id, number, normalised, at)))
            details = {"before": dict(found.weights), "weights": normalised}
            _note(connection, found.id, at, by, "weights", details)
            return _find(connection, name)

    def _change(self, connection: Connection, found: Experiment, values: dict[str, Any]) -> None:
        same = (experiments.c.id == found.id, experiments.c.version == found.version)
        changed = connection.execute(update(experiments).where(*same).values(version=found.version + 1, **values))
        if changed.rowcount != 1:
            raise Conflict(
                f"experiment {found.name} was changed at the same time; look at it and try again",
                code="experiment_changed",
            )

    def _has_all_requests(self, name: str) -> Conflict:
        with self._database.reading() as connection:
            model = _find(connection, name).model
            query = select(experiments.c.name).where(
                experiments.c.model == model, experiments.c.state == "running", experiments.c.requests == "all"
            )
            other = connection.execute(query).scalar()
        return Conflict(
            f"experiment {other} runs on all requests of {model} already; stop it first, or let requests name {name}",
            code="experiment_overlaps",
        )


_NAME = re.compile(NAME)
_MOST_PERIODS = 60_000  # an exposure id holds the number in two bytes


def _query() -> Any:
    same = (periods.c.experiment_id == experiments.c.id) & (periods.c.number == experiments.c.period)
    return select(experiments, periods.c.weights).join(periods, same)


def _find(connection: Connection, name: str) -> Experiment:
    if not _NAME.fullmatch(name):
        raise _not_found(name)  # PostgreSQL would refuse some of these, such as one with a character 0
    row = connection.execute(_query().where(experiments.c.name == name)).one_or_none()
    if row is None:
        raise _not_found(name)
    return _experiment(row)


def _not_found(name: str) -> NotFound:
    shown = name if name.isascii() and name.isprintable() and len(name) <= 80 else ascii(name)[:80]
    return NotFound(f"there is no experiment named {shown}", code="experiment_not_found")


def _experiment(row: Row[Any]) -> Experiment:
    definition = Definition.from_json(row.definition)
    return Experiment(
        id=row.id,
        definition=definition,
        model=row.model,
        state=row.state,
        # JSON of a database may have another order.
        weights={arm: row.weights[arm] for arm in definition.arm_names},
        period=row.period,
        version=row.version,
        created_at=row.created_at,
        secret=bytes(row.secret),
    )


def _period(experiment_id: int, number: int, weights: Mapping[str, float], at: float) -> dict[str, Any]:
    return {"experiment_id": experiment_id, "number": number, "weights": dict(weights), "at": at}


def _note(connection: Connection, id_: int, at: float, by: str | None, action: str, details: Mapping[str, Any]) -> None:
    values = {"experiment_id": id_, "at": at, "changed_by": by, "action": action, "details": dict(details)}
    connection.execute(insert(changes).values(values))
