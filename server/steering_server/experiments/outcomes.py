"""Outcomes, which clients send by the id of an exposure."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, insert, select
from sqlalchemy.exc import IntegrityError

from steering_server.errors import Conflict, RequestError
from steering_server.experiments.database import Database
from steering_server.experiments.definition import check_value
from steering_server.experiments.exposure_ids import read_exposure_id
from steering_server.experiments.store import Experiment
from steering_server.experiments.tables import outcomes

MAX_OUTCOMES = 5_000
"""Outcomes of one request."""
KEY = r"^[!-~]{1,128}$"
_LOOKED_UP = 500  # keys of one query; SQLite allows 32,766 parameters and older versions 999
_ATTEMPTS = 5


@dataclass(frozen=True)
class Given:
    """One outcome as a client sends it."""

    exposure: str
    value: float
    metric: str | None = None
    """None for the primary outcome."""
    key: str | None = None
    """What makes it the same outcome when it is sent again; None for the exposure and the metric."""


@dataclass(frozen=True)
class Stored:
    """What became of the outcomes of a request."""

    stored: int
    repeated: int
    """Those that had been stored before."""


class OutcomeStore:
    """Stores outcomes. They are acknowledged only once they are on the disk."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, experiment: Experiment, given: Sequence[Given]) -> Stored:
        """Store outcomes, all or none of them.

        Raises:
            Conflict: the experiment is archived, or a key was used for another outcome.
            RequestError: an exposure is none of this experiment, or a metric or a value is not allowed.
            Unavailable: the database cannot be reached; nothing is stored.
        """
        if experiment.state == "archived":
            raise Conflict(f"experiment {experiment.name} is archived and takes no outcomes", code="experiment_state")
        rows = _rows(experiment, given)
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                with self._database.writing() as connection:
                    new = _new(connection, experiment.id, rows, given)
                    if new:
                        connection.execute(insert(outcomes), new)
                return Stored(stored=len(new), repeated=len(given) - len(new))
            except IntegrityError:
                # Another replica has stored one of the keys at the same time; it is found the next time.
                if attempt == _ATTEMPTS:
                    raise
        raise AssertionError("not reached")


def _rows(experiment: Experiment, given: Sequence[Given]) -> dict[str, dict[str, Any]]:
    """Return the rows to insert by their key."""
    definition, at = experiment.definition, time.time()
    metrics, arms = definition.own_metrics, len(definition.arms)
    rows: dict[str, dict[str, Any]] = {}
    for index, one in enumerate(given):
        param = f"outcomes.{index}"
        content = read_exposure_id(one.exposure, experiment.secret)
        if content is None or content.arm >= arms:
            shown = one.exposure if one.exposure.isascii() and one.exposure.isprintable() else ascii(one.exposure)
            raise RequestError(
                f"{param}.exposure: is {shown[:80]}, which is no exposure of the experiment {experiment.name}; send "
                "the id that the answer had in exposure.id",
                param=f"{param}.exposure",
                code="exposure_not_found",
            )
        name = one.metric or definition.outcome.name
        if name not in metrics:
            raise RequestError(
                f"{param}.metric: is {name if name.isascii() else ascii(name)}; experiment {experiment.name} takes "
                f"outcomes of {', '.join(metrics)}",
                param=f"{param}.metric",
            )
        check_value(metrics[name], one.value, f"{param}.value")
        key = f"key:{one.key}" if one.key is not None else f"{one.exposure}:{name}"
        row = {
            "experiment_id": experiment.id,
            "key": key,
            "exposure": one.exposure,
            "arm": content.arm,
            "period": content.period,
            "unit": content.unit,
            "metric": name,
            "value": float(one.value),
            "at": at,
        }
        before = rows.setdefault(key, row)
        if not _same(before, row):
            raise _conflict(index, one, before["value"], "in this request")
    return rows


def _new(
    connection: Connection, experiment_id: int, rows: dict[str, dict[str, Any]], given: Sequence[Given]
) -> list[dict[str, Any]]:
    """Return the rows that are not stored yet."""
    keys = list(rows)
    known: set[str] = set()
    for start in range(0, len(keys), _LOOKED_UP):
        some = keys[start : start + _LOOKED_UP]
        query = select(outcomes).where(outcomes.c.experiment_id == experiment_id, outcomes.c.key.in_(some))
        for found in connection.execute(query).mappings():
            row = rows[found["key"]]
            if not _same(row, found):
                index = next(
                    place
                    for place, one in enumerate(given)
                    if row["key"] in (f"key:{one.key}", f"{one.exposure}:{row['metric']}")
                )
                raise _conflict(index, given[index], found["value"], "before")
            known.add(found["key"])
    # In one order everywhere, so that two transactions with the same keys wait for each other and do not deadlock.
    return [rows[key] for key in sorted(rows) if key not in known]


def _same(one: Any, other: Any) -> bool:
    return all(one[name] == other[name] for name in ("exposure", "metric", "value"))


def _conflict(index: int, given: Given, value: float, when: str) -> Conflict:
    what = f"the key {given.key}" if given.key is not None else "this exposure and metric"
    return Conflict(
        f"outcomes.{index}.key: {what} was used {when}, for another outcome (value {value:g}); nothing of this request "
        "was stored; send a key of its own with each outcome",
        param=f"outcomes.{index}.key",
        code="outcome_conflict",
    )
