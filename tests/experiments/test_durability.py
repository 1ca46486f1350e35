"""What has been acknowledged is there after kill -9, in the middle of 2,000 outcomes."""

import os
import signal
import subprocess
import sys

import pytest
from sqlalchemy import select

from steering_server.experiments.database import Database, parse_database_url
from steering_server.experiments.tables import outcomes
from tests.experiments.postgres import Postgres
from tests.experiments.writing import EACH


def kill_in_the_middle(url: str, after: int) -> set[str]:
    """Start to write 2,000 outcomes, kill the process after ``after`` requests; return what was acknowledged."""
    command = [sys.executable, "-m", "tests.experiments.writing", url, "2000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        lines = [process.stdout.readline() for _ in range(after)]
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.readlines()  # acknowledged between the last line that was read and the end
    assert process.returncode == -signal.SIGKILL
    return {exposure for line in lines if line.endswith("\n") for exposure in line.split()}


def stored(url: str) -> list[str]:
    database = Database(parse_database_url(url))
    with database.reading() as connection:
        found = list(connection.execute(select(outcomes.c.exposure)).scalars())
    database.close()
    return found


@pytest.mark.parametrize("after", [1, 120])
def test_no_acknowledged_outcome_is_lost_by_kill_9(database_url: str, after: int):
    acknowledged = kill_in_the_middle(database_url, after)
    found = stored(database_url)
    assert EACH * after <= len(acknowledged) < 2000
    assert acknowledged <= set(found)
    assert len(found) == len(set(found)) <= len(acknowledged) + EACH, "at most one request was not acknowledged yet"
    assert len(found) % EACH == 0, "a request is stored as a whole"


def test_no_acknowledged_outcome_is_lost_when_postgresql_fails_too(postgresql: Postgres):
    url = postgresql.empty_database()
    acknowledged = kill_in_the_middle(url, 60)
    postgresql.stop()
    postgresql.start()
    assert acknowledged <= set(stored(url))
