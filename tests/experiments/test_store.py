"""Experiments are kept with every change, and a change that makes no sense is refused."""

import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from steering_server.errors import ConfigError, Conflict, NotFound, RequestError, Unavailable
from steering_server.experiments.database import Database, parse_database_url, sqlite_url
from steering_server.experiments.definition import ArmDefinition, Guardrail, Outcome
from steering_server.experiments.live import Experiments
from steering_server.experiments.tables import metadata
from tests.experiments.building import HALVES, begin, definition, opened
from tests.experiments.conftest import Replica


def test_an_experiment_is_found_as_it_was_created(experiments: Experiments):
    defined = definition(
        outcome=Outcome("stars", "mean", 1, 5, expected=3.2),
        guardrails=(Guardrail("latency", max_relative_increase=0.1), Guardrail("regrets", 0.1, None, 0, 9)),
        unit="header:x-account",
        description="Größe \N{SNOWMAN}",
        store_text=True,
    )
    made = experiments.create(defined, {"control": 0.9, "treatment": 0.1}, "ops")
    found = experiments.find("greeting")
    assert found == made
    assert found.definition == defined
    assert (found.state, found.weights, found.period) == ("draft", {"control": 0.9, "treatment": 0.1}, 1)
    assert found.secret.hex() not in repr(found)


def test_every_change_is_kept_with_who_and_when(experiments: Experiments):
    name = begin(experiments)
    experiments.set_weights(name, {"treatment": 0.9, "control": 0.1}, "someone")
    experiments.set_state(name, "stop", None)
    experiments.set_state(name, "archive", "ops")
    history = experiments.history(experiments.find(name))
    assert [(change.action, change.by) for change in history] == [
        ("create", "ops"), ("start", "ops"), ("weights", "someone"), ("stop", None), ("archive", "ops"),
    ]  # fmt: skip
    assert history[2].details == {"before": HALVES, "weights": {"control": 0.1, "treatment": 0.9}}
    assert [change.at for change in history] == sorted(change.at for change in history)


def test_states_follow_each_other_in_one_order(experiments: Experiments):
    experiments.create(definition(), HALVES, None)
    for refused, message in (("stop", "is draft; only one that is running can be stopped"),):
        with pytest.raises(Conflict, match=message):
            experiments.set_state("greeting", refused, None)
    experiments.set_state("greeting", "start", None)
    for refused in ("start", "archive"):
        with pytest.raises(Conflict, match="is running"):
            experiments.set_state("greeting", refused, None)
    experiments.set_state("greeting", "stop", None)
    experiments.set_state("greeting", "start", None)
    experiments.set_state("greeting", "stop", None)
    experiments.set_state("greeting", "archive", None)
    for refused in ("start", "stop", "archive"):
        with pytest.raises(Conflict, match="is archived"):
            experiments.set_state("greeting", refused, None)
    with pytest.raises(Conflict, match="archived"):
        experiments.set_weights("greeting", HALVES, None)


def test_a_name_is_used_once(experiments: Experiments):
    experiments.create(definition(), HALVES, None)
    with pytest.raises(Conflict, match="there is an experiment greeting already"):
        experiments.create(definition(salt="another"), HALVES, None)
    assert len(experiments.all()) == 1


def test_one_experiment_at_most_has_all_requests(experiments: Experiments, replica: Replica):
    begin(experiments)
    second = replica()
    second.create(definition("second"), HALVES, None)
    with pytest.raises(Conflict, match="experiment greeting runs on all requests of tiny-llama already"):
        second.set_state("second", "start", None)
    assert second.find("second").state == "draft"
    second.create(definition("third", requests="named"), HALVES, None)
    second.set_state("third", "start", None)
    experiments.set_state("greeting", "stop", None)
    second.set_state("second", "start", None)


def test_an_experiment_that_does_not_exist_is_not_found(experiments: Experiments):
    for ask in (
        lambda: experiments.find("nothing"),
        lambda: experiments.find("a\0b"),
        lambda: experiments.set_state("\N{SNOWMAN}" * 300, "start", None),
        lambda: experiments.set_state("nothing", "start", None),
        lambda: experiments.set_weights("nothing", HALVES, None),
        lambda: experiments.report("nothing"),
        lambda: experiments.add_outcomes("nothing", []),
        lambda: experiments.find("Robert'); DROP TABLE experiments;--"),
    ):
        with pytest.raises(NotFound, match="there is no experiment named"):
            ask()


def test_experiments_are_listed_newest_first_and_by_state(experiments: Experiments):
    for name in ("one", "two", "three"):
        experiments.create(definition(name), HALVES, None)
    experiments.set_state("two", "start", None)
    assert [one.name for one in experiments.all()] == ["three", "two", "one"]
    assert [one.name for one in experiments.all("running")] == ["two"]


def test_changes_by_many_at_once_are_all_made_or_refused(experiments: Experiments, replica: Replica):
    begin(experiments)
    others, outcomes = [replica() for _ in range(3)], []

    def change(one: Experiments, share: float) -> None:
        try:
            one.set_weights("greeting", {"control": share, "treatment": 1 - share}, None)
            outcomes.append("made")
        except Conflict:
            outcomes.append("refused")

    threads = [threading.Thread(target=change, args=(others[i % 3], 0.1 + i / 20)) for i in range(9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    found = experiments.find("greeting")
    made = outcomes.count("made")
    assert len(outcomes) == 9
    assert made >= 1
    assert found.period == 1 + made
    assert len(experiments.history(found)) == 2 + made


def test_the_migrations_make_the_tables_that_are_used(database_url: str):
    database = Database(parse_database_url(database_url))
    with database.writing() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    database.close()


def test_replicas_that_start_at_once_migrate_once(database_url: str):
    databases = [Database(parse_database_url(database_url)) for _ in range(4)]
    failures: list[Exception] = []

    def read(database: Database) -> None:
        try:
            with database.reading() as connection:
                connection.execute(text("SELECT count(*) FROM experiments"))
        except Exception as exc:
            failures.append(exc)

    threads = [threading.Thread(target=read, args=(database,)) for database in databases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for database in databases:
        database.close()
    assert not failures


def test_a_database_of_a_newer_version_is_left_alone(database_url: str):
    database = Database(parse_database_url(database_url))
    with database.writing() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    database.close()
    experiments = opened(database_url)
    with pytest.raises(Unavailable):
        experiments.create(definition(), HALVES, None)
    experiments.close()


def test_reading_makes_no_file(tmp_path: Path):
    file = tmp_path / "state" / "experiments.sqlite"
    experiments = opened(sqlite_url(file))
    assert experiments.all() == []
    experiments.close()
    assert not file.parent.exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("nonsense", "cannot be read"),
        ("mysql://root@localhost/x", "is for mysql"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("postgresql+asyncpg://a:b@c/d", "is for postgresql.asyncpg"),
        ("postgresql://user:secret@host:port/x", "cannot be read"),
    ],
)
def test_a_url_that_is_none_of_a_database_is_refused_without_its_password(given: str, message: str):
    with pytest.raises(ConfigError, match=message) as caught:
        parse_database_url(given)
    assert "secret" not in str(caught.value)


def test_the_password_is_not_shown():
    assert "secret" not in Database(parse_database_url("postgresql://user:secret@127.0.0.1:1/x")).where


@pytest.mark.parametrize(
    ("changes", "weights", "message"),
    [
        ({}, {"control": 0.5, "treatment": 0.4}, "arms: add up to 0.9; they must add up to 1"),
        ({}, {"control": 0.5, "treatment": 0.6}, "arms: add up to 1.1"),
        ({}, {"control": 0.0, "treatment": 0.0}, "arms: add up to 0"),
        ({}, {"control": 1.5, "treatment": -0.5}, "control has the weight 1.5; it must be between 0 and 1"),
        ({}, {"control": float("nan"), "treatment": 0.5}, "control has the weight nan"),
        ({}, {"control": 1.0}, "arms: has no weight for the arm treatment"),
        ({}, HALVES | {"other": 0.0}, "has other, which is no arm; the arms are control, treatment"),
        ({"arms": (ArmDefinition("control", "baseline"),)}, {"control": 1.0}, "arms: there are 1"),
        ({"arms": (ArmDefinition("a", "baseline"), ArmDefinition("A", "x"))}, HALVES, "arms.1.name: A is used twice"),
        ({"arms": (ArmDefinition("baseline", "heads"), ArmDefinition("b", "x"))}, HALVES, "reserved for the unsteered"),
        ({"arms": (ArmDefinition("a", "baseline"), ArmDefinition("b", "x@much"))}, HALVES, "arms.1.steering: "),
        ({"unit": "session"}, HALVES, "unit: is session; it must be user, conversation or header:NAME"),
        ({"unit": "header:Authorization"}, HALVES, "unit: is header:Authorization"),
        ({"unit": "header:authorization"}, HALVES, "a header with credentials"),
        ({"outcome": Outcome("latency")}, HALVES, "outcome.name: is latency, which the server measures"),
        ({"outcome": Outcome("stars", "mean", 5, 1)}, HALVES, "outcome.upper: is 1; it must be above lower, 5"),
        ({"outcome": Outcome("solved", "rate", 0, 5)}, HALVES, "outcome.kind: is rate"),
        ({"outcome": Outcome("solved", expected=1.5)}, HALVES, "outcome.expected: is 1.5"),
        ({"minimum_effect": 2.0}, HALVES, "minimum_effect: is 2; it must be above 0 and at most 1"),
        ({"guardrails": (Guardrail("latency"),)}, HALVES, "guardrails.0.max_increase: give either"),
        ({"guardrails": (Guardrail("latency", 1, 1),)}, HALVES, "guardrails.0.max_increase: give either"),
        ({"guardrails": (Guardrail("solved", 1),)}, HALVES, "guardrails.0.metric: solved is used twice"),
        ({"guardrails": (Guardrail("latency", 1, None, 0, 1),)}, HALVES, "guardrails.0.lower: latency is measured"),
        ({"guardrails": (Guardrail("own", 1, None, 0),)}, HALVES, "guardrails.0.lower: give both bounds"),
        ({"guardrails": (Guardrail("own", 1, None, 2, 1),)}, HALVES, "guardrails.0.upper: is 1; it must be above"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_by_its_field(
    tmp_path: Path, changes: dict[str, object], weights: dict[str, float], message: str
):
    experiments = opened(sqlite_url(tmp_path / "x.sqlite"))
    with pytest.raises(RequestError, match=message):
        experiments.create(definition(**changes), weights, None)
    assert experiments.all() == []
    experiments.close()


def test_weights_that_rounding_has_moved_off_1_are_taken(experiments: Experiments):
    made = experiments.create(definition(), {"control": 0.3333333, "treatment": 0.6666666}, None)
    assert sum(made.weights.values()) == pytest.approx(1, abs=1e-12)
