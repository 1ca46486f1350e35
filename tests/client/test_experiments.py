"""Both clients run experiments on a server."""

from collections.abc import Iterator
from typing import Any

import anyio
import pytest
import torch

from steering_client import AsyncSteeringClient, BadRequest, Conflict, NotFound, SteeringClient
from steering_server.experiments.database import Database, parse_database_url, sqlite_url
from steering_server.experiments.live import Experiments
from tests.builders import build_model, profiles_for
from tests.serving import serving

ARMS = [
    {"name": "control", "steering": "baseline", "weight": 0.5},
    {"name": "warm", "steering": "heads", "weight": 0.5},
]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("server")
    experiments = Experiments(Database(parse_database_url(sqlite_url(folder / "experiments.sqlite"))))
    model = build_model("llama", dtype=torch.float32)
    with serving(model, folder / "profiles", profiles_for(model), experiments=experiments) as url:
        yield url


def test_the_sync_client_runs_an_experiment(url: str):
    with SteeringClient(url) as client:
        experiments = client.experiments
        made = experiments.create("sync", ARMS, {"name": "solved"}, requests="all", unit="conversation")
        assert (made.state, made.arms[1].steering, made.changes) == ("draft", "heads", None)
        assert experiments.start("sync").state == "running"
        answer = client.chat([{"role": "user", "content": "hi"}], max_tokens=1)
        assert answer.exposure is not None
        assert answer.exposure.arm in ("control", "warm")
        with client.stream("x", max_tokens=2) as stream:
            streamed = stream.final()
        assert streamed.exposure is not None
        given = [{"exposure": one.exposure.id, "value": True} for one in (answer, streamed) if one.exposure]
        assert experiments.add_outcomes("sync", given).stored == 2
        assert experiments.add_outcomes("sync", iter(given)).repeated == 2
        with pytest.raises(Conflict, match="for another outcome"):
            experiments.add_outcomes("sync", [given[0] | {"value": False}])
        with pytest.raises(BadRequest, match=r"outcomes\.0\.exposure"):
            experiments.add_outcomes("sync", [{"exposure": "exp_x", "value": 1}])
        report = experiments.report("sync")
        assert sum(arm.outcomes for arm in report.arms) == 2
        assert report.comparisons[0].interval is None
        last = experiments.series("sync", points=3).points[-1]
        assert [(arm.units, arm.mean, arm.interval) for arm in last.arms] == [
            (arm.outcomes, arm.mean, arm.interval) for arm in report.arms
        ]
        assert experiments.set_weights("sync", {"control": 0.25, "warm": 0.75}).arms[1].weight == 0.75
        assert experiments.stop("sync").state == "stopped"
        assert experiments.archive("sync").state == "archived"
        changes = experiments.show("sync").changes
        assert changes is not None
        assert [change.action for change in changes] == ["create", "start", "weights", "stop", "archive"]
        assert "sync" in [one.name for one in experiments.all("archived")]
        with pytest.raises(NotFound):
            experiments.show("nothing")


def test_the_async_client_runs_an_experiment(url: str):
    async def run() -> Any:
        async with AsyncSteeringClient(url) as client:
            await client.experiments.create("async", ARMS, {"name": "stars", "kind": "mean", "upper": 5})
            await client.experiments.start("async")
            answer = await client.complete("x", max_tokens=1, user="someone", experiment="async")
            assert answer.exposure is not None
            await client.experiments.add_outcomes("async", [{"exposure": answer.exposure.id, "value": 4.5}])
            return await client.experiments.report("async")

    report = anyio.run(run)
    assert {arm.mean for arm in report.arms} == {None, 4.5}
