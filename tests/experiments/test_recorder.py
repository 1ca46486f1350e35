"""Exposures are stored in batches, off the path of requests; what is lost is counted."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import select

from steering_server.errors import Unavailable
from steering_server.experiments.database import Database, parse_database_url
from steering_server.experiments.live import Experiments
from steering_server.experiments.tables import exposures
from tests.experiments.building import HALVES, assign, begin, definition, expose, exposure, opened
from tests.experiments.postgres import Postgres


@contextmanager
def away(experiments: Experiments, url: str, server: Postgres | None) -> Iterator[None]:
    """Make the database unusable inside this context: PostgreSQL is stopped, SQLite is locked by somebody."""
    if server is not None:
        server.stop()
        yield
        server.start()
        return
    other = Database(parse_database_url(url))
    with other.writing():
        yield
    other.close()


def counts(experiments: Experiments) -> tuple[int, int]:
    found = experiments.report("greeting")
    return sum(arm.exposures for arm in found.arms), found.lost_exposures


def test_every_exposure_is_stored_as_it_was_noted(experiments: Experiments, database_url: str):
    name = begin(experiments)
    given = assign(experiments, name, "someone")
    noted = exposure(
        given,
        finish_reason="error",
        time_to_first_token=None,
        prompt="a\0b \N{SNOWMAN}",
        answer="",
        profiles=["x", "y"],
    )
    experiments.recorder.record(noted)
    assert experiments.recorder.flush(20)
    database = Database(parse_database_url(database_url))
    with database.reading() as connection:
        (row,) = connection.execute(select(exposures)).mappings().all()
    database.close()
    expected = vars(noted) | {"failed": True, "prompt": "a\N{REPLACEMENT CHARACTER}b \N{SNOWMAN}"}
    assert {key: bytes(value) if key == "unit" else value for key, value in row.items()} == expected


def test_recording_waits_for_nothing(experiments: Experiments):
    name = begin(experiments)
    given = [exposure(assign(experiments, name, f"user-{i}")) for i in range(2000)]
    began = time.perf_counter()
    for one in given:
        experiments.recorder.record(one)
    assert time.perf_counter() - began < 1  # with two threads on one core; alone it takes 5 ms
    assert experiments.recorder.flush(60)
    assert counts(experiments) == (2000, 0)


def test_a_full_queue_loses_exposures_and_counts_them(database_url: str, request: pytest.FixtureRequest):
    server = request.getfixturevalue("postgresql") if database_url.startswith("postgresql") else None
    experiments = opened(database_url, queue=50)
    name = begin(experiments)
    given = [exposure(assign(experiments, name, f"user-{i}")) for i in range(80)]
    with away(experiments, database_url, server):
        for one in given:
            experiments.recorder.record(one)
        assert experiments.recorder.counts().lost == 30
        assert experiments.recorder.counts().queued == 50
    assert experiments.recorder.flush(60)
    assert experiments.recorder.counts().queued == 0
    expose(experiments, name, "one more")  # with which the count is stored
    assert experiments.recorder.flush(60)
    assert counts(experiments) == (51, 30)
    experiments.close()


def test_a_database_that_goes_away_holds_up_no_assignment(postgresql: Postgres):
    experiments = opened(postgresql.empty_database())
    name = begin(experiments)
    first = assign(experiments, name, "someone")
    postgresql.stop()
    try:
        began = time.perf_counter()
        assert expose(experiments, name, "someone").arm == first.arm
        assert time.perf_counter() - began < 1
        with pytest.raises(Unavailable, match="nothing was stored; try again later"):
            experiments.set_weights(name, HALVES, None)
        with pytest.raises(Unavailable):
            experiments.find(name)
        assert experiments.everywhere is not None, "what is known stays"
    finally:
        postgresql.start()
    assert experiments.recorder.flush(60)
    assert experiments.set_weights(name, HALVES, None).period == 2
    assert counts(experiments) == (1, 0)
    experiments.close()


def test_a_database_that_comes_later_is_used_then(postgresql: Postgres):
    url = postgresql.empty_database()
    postgresql.stop()
    try:
        experiments = opened(url)
        with pytest.raises(Unavailable):
            experiments.all()
    finally:
        postgresql.start()
    experiments.create(definition(), HALVES, None)
    assert experiments.find("greeting").state == "draft"
    experiments.close()


def test_closing_stores_what_is_left(database_url: str):
    experiments = opened(database_url)
    name = begin(experiments)
    for i in range(1200):
        expose(experiments, name, f"user-{i}")
    experiments.close()
    later = opened(database_url)
    assert counts(later) == (1200, 0)
    later.close()


def test_an_exposure_that_the_database_refuses_takes_no_other_with_it(experiments: Experiments):
    name = begin(experiments)
    for i in range(5):
        expose(experiments, name, f"user-{i}", **({"experiment_id": 99} if i == 2 else {}))
    assert experiments.recorder.flush(60)
    assert experiments.recorder.counts().lost == 1
    assert counts(experiments)[0] == 4
