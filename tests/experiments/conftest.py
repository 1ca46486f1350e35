"""Both databases that experiments are stored in."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from steering_server.experiments.database import sqlite_url
from steering_server.experiments.live import Experiments
from tests.experiments.building import opened
from tests.experiments.postgres import Postgres, postgres

Replica = Callable[[], Experiments]


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Postgres]:
    """A PostgreSQL for all tests of this process."""
    with postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, once of each kind."""
    if request.param == "sqlite":
        return sqlite_url(tmp_path / "state" / "experiments.sqlite")
    server: Postgres = request.getfixturevalue("postgresql")
    return server.empty_database()


@pytest.fixture
def replica(database_url: str) -> Iterator[Replica]:
    """Makes replicas that share the database."""
    made: list[Experiments] = []

    def make() -> Experiments:
        made.append(opened(database_url))
        return made[-1]

    yield make
    for experiments in made:
        experiments.close()


@pytest.fixture
def experiments(replica: Replica) -> Experiments:
    """The experiments of one server."""
    return replica()
