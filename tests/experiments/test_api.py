"""Experiments over HTTP: who may do what, what requests are told, and what is refused."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from steering_server.experiments.database import sqlite_url
from tests.api.test_openapi import STREAMED, check_events
from tests.builders import build_model, profiles_for
from tests.experiments.asking import ARMS, ASKS, BODY, Api
from tests.experiments.building import opened
from tests.serving import serving


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    folder = tmp_path_factory.mktemp("experiments")
    experiments = opened(sqlite_url(folder / "experiments.sqlite"), model="")
    model = build_model("llama", dtype=torch.float32)
    with serving(model, folder / "profiles", profiles_for(model), experiments=experiments) as url:
        api = Api(url, experiments)
        yield api
        api.http.close()


@pytest.fixture
def api(server: Api) -> Iterator[Api]:
    """The server, on which nothing runs before and after."""
    yield server
    server.end()


def arms_of(api: Api, users: int, **fields: Any) -> list[str]:
    body = ASKS["/v1/completions"] | {"max_tokens": 1} | fields
    return [
        api.send("POST", "/v1/completions", body | {"user": f"user-{user}"})["exposure"]["arm"] for user in range(users)
    ]


def test_an_experiment_is_created_listed_and_shown_with_its_changes(api: Api):
    made = api.send("POST", "/v1/experiments", BODY | {"name": "shown"}, status=201)
    assert made["state"] == "draft"
    assert made["model"] == "tiny-llama"
    assert made["arms"] == ARMS
    assert made["outcome"] == {
        "name": "solved", "kind": "rate", "lower": 0, "upper": 1, "better": "higher", "expected": None,
    }  # fmt: skip
    assert made["minimum_effect"] == 0.05
    assert "secret" not in made
    assert made in api.send("GET", "/v1/experiments")["data"]
    assert made in api.send("GET", "/v1/experiments?state=draft")["data"]
    assert made not in api.send("GET", "/v1/experiments?state=running")["data"]
    shown = api.send("GET", "/v1/experiments/shown")
    assert [change["action"] for change in shown.pop("changes")] == ["create"]
    assert shown == made


@pytest.mark.parametrize("path", ASKS)
def test_an_assigned_request_is_answered_as_if_it_had_asked_for_the_arm(api: Api, path: str):
    api.begin(name=f"as-if{path.replace('/', '-')}")
    seen = set()
    for user in range(12):
        response = api.http.post(path, json=ASKS[path] | {"user": f"user-{user}"})
        answer = response.json()
        exposure = answer["exposure"]
        assert exposure["arm"] == answer["steering"]["arm"] == response.headers["x-steering"].partition(";")[0]
        assert response.headers["x-exposure-id"] == exposure["id"]
        assert response.headers["x-experiment"] == f"{exposure['experiment']};arm={exposure['arm']}"
        steering = {"profile": "heads", "strength": 0.5} if exposure["arm"] == "warm" else {"profile": "baseline"}
        asked = api.send("POST", path, ASKS[path] | {"steering": steering})
        assert "exposure" not in asked
        text = "output" if path == "/v1/responses" else "choices"
        without_ids = [
            [{key: value for key, value in each.items() if key != "id"} for each in one[text]]
            for one in (answer, asked)
        ]
        assert without_ids[0] == without_ids[1]
        assert answer["steering"]["profiles"] == asked["steering"]["profiles"]
        seen.add(exposure["arm"])
    assert seen == {"control", "warm"}


@pytest.mark.parametrize("path", STREAMED)
def test_every_event_of_a_stream_says_the_exposure(api: Api, path: str):
    api.begin(name=f"stream{path.replace('/', '-')}")
    with api.http.stream("POST", path, json=ASKS[path] | {"user": "someone", "stream": True}) as response:
        text = response.read().decode()
        id_ = response.headers["x-exposure-id"]
    assert check_events(api.url, path, text) > 2
    events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    envelopes = [event.get("response", event) for event in events if path != "/v1/responses" or "response" in event]
    assert envelopes
    assert {envelope["exposure"]["id"] for envelope in envelopes} == {id_}


def test_the_same_user_always_has_the_same_arm(api: Api):
    api.begin(name="sticky")
    first = arms_of(api, 10)
    assert first == arms_of(api, 10)
    assert set(first) == {"control", "warm"}


def test_a_header_or_the_first_message_of_a_user_can_be_the_unit(api: Api):
    api.begin(name="by-header", unit="header:x-account")
    ask = ASKS["/v1/completions"]
    by_account = {
        account: {
            api.send("POST", "/v1/completions", ask | {"user": user}, headers={"x-account": account})["exposure"]["arm"]
            for user in "ab"
        }
        for account in ("one", "two", "three", "four", "five", "six", "seven")
    }
    assert all(len(arms) == 1 for arms in by_account.values())
    assert len(set.union(*by_account.values())) == 2
    api.end()
    api.begin(name="by-conversation", unit="conversation")
    system = {"role": "system", "content": "be brief"}
    arms = set()
    for opening in "abcdefgh":
        turns = [system, {"role": "user", "content": opening}]
        first = api.send("POST", "/v1/chat/completions", {"messages": turns, "max_tokens": 1})
        turns += [{"role": "assistant", "content": "well"}, {"role": "user", "content": "and then?"}]
        second = api.send("POST", "/v1/chat/completions", {"messages": turns, "max_tokens": 1})
        assert first["exposure"]["arm"] == second["exposure"]["arm"]
        arms.add(first["exposure"]["arm"])
    assert len(arms) == 2


@pytest.mark.parametrize(
    "fields",
    [
        {"steering": {"profile": "final"}},
        {"steering": {"profile": "baseline"}},
        {"arms": ["baseline", "heads"]},
        {"model": "tiny-llama+final"},
        {"model": "tiny-llama+baseline"},
        {"user": None},
        {"user": ""},
    ],
)
def test_a_request_with_steering_of_its_own_or_without_a_unit_takes_no_part(api: Api, fields: dict[str, Any]):
    api.begin(name=f"apart-{abs(hash(json.dumps(fields)))}")
    response = api.http.post("/v1/completions", json=ASKS["/v1/completions"] | {"user": "someone"} | fields)
    assert response.status_code == 200
    assert "exposure" not in response.json()
    assert "x-exposure-id" not in response.headers


def test_a_request_can_name_an_experiment(api: Api):
    api.begin(name="named", requests="named")
    ask = ASKS["/v1/completions"] | {"user": "someone"}
    assert "exposure" not in api.send("POST", "/v1/completions", ask)
    assert api.send("POST", "/v1/completions", ask | {"experiment": "named"})["exposure"]["experiment"] == "named"
    for fields, status, param, message in (
        ({"experiment": "other"}, 404, "experiment", "no experiment named other is running; running: named"),
        ({"experiment": "named", "arms": ["baseline"]}, 400, "experiment", "steering is given by arms already"),
        ({"experiment": "named", "model": "tiny-llama+heads"}, 400, "experiment", "steering is given by model already"),
        ({"experiment": "named", "user": ""}, 400, "user", "named assigns by user, which this request does not have"),
        ({"experiment": 3}, 400, "experiment", "valid string"),
    ):
        refused = api.refused("POST", "/v1/completions", ask | fields, status=status)
        assert refused[0] == param
        assert message in refused[1]


def test_a_server_without_experiments_says_so(url: str):
    response = httpx.post(f"{url}/v1/completions", json={"prompt": "x", "experiment": "greeting"})
    assert response.status_code == 404
    assert "no experiment named greeting is running; running: none" in response.json()["error"]["message"]
    assert httpx.get(f"{url}/v1/experiments").status_code == 404


def test_outcomes_go_into_the_report(api: Api):
    api.begin(name="reported", guardrails=[{"metric": "latency", "max_increase": 60}])
    ask = ASKS["/v1/completions"] | {"max_tokens": 1}
    exposures = [api.send("POST", "/v1/completions", ask | {"user": f"user-{user}"})["exposure"] for user in range(40)]
    given = [{"exposure": each["id"], "value": each["arm"] == "warm"} for each in exposures]
    sent = api.send("POST", "/v1/experiments/reported/outcomes", {"outcomes": given})
    assert (sent["stored"], sent["repeated"]) == (40, 0)
    assert api.send("POST", "/v1/experiments/reported/outcomes", {"outcomes": given})["repeated"] == 40
    report = api.send("GET", "/v1/experiments/reported/report")
    assert [arm["mean"] for arm in report["arms"]] == [0, 1]
    assert sum(arm["exposures"] for arm in report["arms"]) == 40
    assert report["comparisons"][0]["verdict"] == "better"
    assert report["arms"][0]["completion_tokens"] == 1
    assert 0 < report["arms"][0]["time_to_first_token"] <= report["arms"][0]["latency"]
    assert report["sample_ratio"]["mismatch"] is False
    assert report["experiment"]["name"] == "reported"
    assert report["warnings"] == []


def test_an_outcome_may_follow_the_answer_at_once(api: Api):
    api.begin(name="at-once")
    for user in range(5):
        answer = api.send("POST", "/v1/completions", ASKS["/v1/completions"] | {"user": f"user-{user}"})
        body = {"outcomes": [{"exposure": answer["exposure"]["id"], "value": 1}]}
        assert api.send("POST", "/v1/experiments/at-once/outcomes", body)["stored"] == 1


def test_weights_are_changed_while_it_runs(api: Api):
    api.begin(name="weighted")
    changed = api.send("PUT", "/v1/experiments/weighted/weights", {"weights": {"control": 0, "warm": 1}})
    assert [arm["weight"] for arm in changed["arms"]] == [0, 1]
    assert changed["changes"][-1]["action"] == "weights"
    assert set(arms_of(api, 10)) == {"warm"}
    param, message = api.refused("PUT", "/v1/experiments/weighted/weights", {"weights": {"control": 0.5, "warm": 0.6}})
    assert (param, message) == ("weights", "weights: add up to 1.1; they must add up to 1")
    assert set(arms_of(api, 10)) == {"warm"}


@pytest.mark.parametrize(
    ("changes", "status", "param", "message"),
    [
        ({"arms": [ARMS[0], ARMS[1] | {"weight": 0.6}]}, 400, "arms", "arms: add up to 1.1; they must add up to 1"),
        ({"arms": [ARMS[0], ARMS[1] | {"weight": -0.5}]}, 400, "arms.1.weight", "greater than or equal to 0"),
        ({"arms": [ARMS[0], ARMS[1] | {"weight": "0.5"}]}, 400, "arms.1.weight", "valid number"),
        ({"arms": ARMS[:1]}, 400, "arms", "at least 2 items"),
        ({"arms": ARMS * 5}, 400, "arms", "at most 8 items"),
        ({"arms": [ARMS[0], ARMS[1] | {"steering": "cold"}]}, 404, "arms.1.steering", "no profile named cold"),
        ({"arms": [ARMS[0], ARMS[1] | {"steering": "heads@x"}]}, 400, "arms.1.steering", "strength"),
        ({"arms": [ARMS[0], ARMS[1] | {"strength": 2}]}, 400, "arms.1.strength", "unknown field"),
        ({"name": "a b"}, 400, "name", "pattern"),
        ({"name": ""}, 400, "name", "pattern"),
        ({"outcome": None}, 400, "outcome", "is required"),
        ({"outcome": {"name": "solved", "kind": "sum"}}, 400, "outcome.kind", "'rate' or 'mean'"),
        ({"unit": "ip"}, 400, "unit", "it must be user, conversation or header:NAME"),
        ({"requests": "some"}, 400, "requests", "'all' or 'named'"),
        ({"alpha": 0}, 400, "alpha", "greater than or equal to 0.000001"),
        ({"minimum_effect": 1e400}, 400, "minimum_effect", "finite"),
        ({"guardrails": [{"metric": "latency"}]}, 400, "guardrails.0.max_increase", "give either"),
        ({"salt": "ä"}, 400, "salt", "pattern"),
    ],
)  # fmt: skip
def test_a_bad_definition_is_refused_by_its_field(
    api: Api, changes: dict[str, Any], status: int, param: str, message: str
):
    body = json.dumps(BODY | {"name": "never"} | changes)  # as text, so that it may have a number that is none
    headers = {"content-type": "application/json"}
    response = api.http.post("/v1/experiments", content=body.replace("Infinity", "1e400"), headers=headers)
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert error["param"] == param, error
    assert message in error["message"]
    assert api.http.get("/v1/experiments/never").status_code == 404


def test_bad_outcomes_are_refused_and_nothing_of_their_request_is_stored(api: Api):
    api.begin(name="strict")
    id_ = api.send("POST", "/v1/completions", ASKS["/v1/completions"] | {"user": "someone"})["exposure"]["id"]
    good, path = {"exposure": id_, "value": 1}, "/v1/experiments/strict/outcomes"
    for bad, param, message in (
        ({"exposure": "exp_x", "value": 1}, "outcomes.1.exposure", "no exposure of the experiment strict"),
        ({"exposure": id_, "value": 2, "key": "k"}, "outcomes.1.value", "it must be 0 or 1"),
        ({"exposure": id_, "value": "1", "key": "k"}, "outcomes.1.value", "valid"),
        ({"exposure": id_, "value": None, "key": "k"}, "outcomes.1.value", "is required"),
        ({"exposure": id_, "value": 1, "metric": "clicks"}, "outcomes.1.metric", "takes outcomes of solved"),
        ({"exposure": id_, "value": 1, "key": "a b"}, "outcomes.1.key", "pattern"),
        ({"exposure": id_, "value": 1, "key": "x" * 129}, "outcomes.1.key", "pattern"),
        ({"exposure": id_, "score": 1}, "outcomes.1.score", "unknown field"),
        ({"value": 1}, "outcomes.1.exposure", "is required"),
    ):
        refused = api.refused("POST", path, {"outcomes": [good, bad]})
        assert refused[0] == param, refused
        assert message in refused[1]
    assert "at least 1 item" in api.refused("POST", path, {"outcomes": []})[1]
    assert "unknown field" in api.refused("POST", path, good)[1]
    assert api.send("GET", "/v1/experiments/strict/report")["arms"][0]["outcomes"] == 0
    assert api.send("POST", path, {"outcomes": [good]})["stored"] == 1


def test_ten_megabytes_of_outcomes_are_refused_with_what_is_allowed(api: Api):
    api.begin(name="large")
    many = [{"exposure": "exp_" + "A" * 44, "value": 1}] * 140_000
    assert len(json.dumps({"outcomes": many})) > 10_000_000
    param, message = api.refused("POST", "/v1/experiments/large/outcomes", {"outcomes": many})
    assert param == "outcomes"
    assert "must have at most 5000 items, not 140000; none was stored; send them in several requests" in message


def test_outcomes_of_an_experiment_that_does_not_exist_are_refused(api: Api):
    body = {"outcomes": [{"exposure": "exp_x", "value": 1}]}
    _, message = api.refused("POST", "/v1/experiments/nothing/outcomes", body, status=404)
    assert message == "there is no experiment named nothing"


def test_changes_that_the_state_does_not_allow_are_conflicts(api: Api):
    api.begin(name="stateful")
    assert "is running" in api.refused("POST", "/v1/experiments/stateful/start", status=409)[1]
    assert (
        "there is an experiment" in api.refused("POST", "/v1/experiments", BODY | {"name": "stateful"}, status=409)[1]
    )
    api.send("POST", "/v1/experiments", BODY | {"name": "rival"}, status=201)
    assert "runs on all requests" in api.refused("POST", "/v1/experiments/rival/start", status=409)[1]
    api.send("POST", "/v1/experiments/stateful/stop")
    assert api.send("POST", "/v1/experiments/stateful/archive")["state"] == "archived"
    assert "is archived" in api.refused("POST", "/v1/experiments/stateful/start", status=409)[1]


def test_an_arm_that_can_no_longer_be_applied_leaves_all_requests_out(api: Api):
    api.begin(name="disabled")
    api.send("POST", "/v1/profiles/heads/disable")
    try:
        ask = ASKS["/v1/completions"]
        for user in range(6):
            answer = api.send("POST", "/v1/completions", ask | {"user": f"user-{user}"})
            assert "exposure" not in answer
            assert answer["steering"]["arm"] == "baseline"
        named = ask | {"user": "someone", "experiment": "disabled"}
        assert "profile heads is disabled" in api.refused("POST", "/v1/completions", named, status=404)[1]
        assert api.experiments.left_out["arm_not_available"] >= 6
        api.send("POST", "/v1/experiments/disabled/stop")
        assert "heads is disabled" in api.refused("POST", "/v1/experiments/disabled/start", status=404)[1]
    finally:
        api.send("POST", "/v1/profiles/heads/enable")


def test_a_refused_request_is_no_exposure_and_text_is_stored_only_where_asked_for(api: Api, tmp_path: Path):
    from sqlalchemy import select

    from steering_server.experiments.database import Database, parse_database_url
    from steering_server.experiments.tables import exposures

    url = api.experiments.where
    api.begin(name="silent")
    ask = ASKS["/v1/completions"] | {"prompt": "a secret", "user": "someone@example.org"}
    api.send("POST", "/v1/completions", ask)
    api.refused("POST", "/v1/completions", ask | {"max_tokens": -1})
    api.refused("POST", "/v1/completions", ask | {"max_tokens": 10_000})
    api.end()
    api.begin(name="recording", store_text=True)
    answer = api.send("POST", "/v1/completions", ask)
    api.send("POST", "/v1/chat/completions", ASKS["/v1/chat/completions"] | {"user": "someone"})
    assert api.experiments.recorder.flush(20)
    database = Database(parse_database_url(url))
    with database.reading() as connection:
        latest = connection.execute(select(exposures).order_by(exposures.c.at.desc()).limit(3)).all()
    database.close()
    chat, told, silent = latest
    said = answer["choices"][0]["text"].replace("\0", "\N{REPLACEMENT CHARACTER}")
    assert (told.prompt, told.answer) == ("a secret", said)
    assert json.loads(chat.prompt) == [{"role": "user", "content": "hi"}]
    assert (silent.prompt, silent.answer) == (None, None)
    assert not any(b"someone" in bytes(row.unit) for row in latest)
    assert {len(row.profiles) for row in latest} <= {0, 1}


def test_metrics_count_exposures_and_outcomes(api: Api):
    api.begin(name="measured")
    ask = ASKS["/v1/completions"]
    id_ = api.send("POST", "/v1/completions", ask | {"user": "someone"})["exposure"]["id"]
    api.send("POST", "/v1/completions", ask)
    api.send("POST", "/v1/experiments/measured/outcomes", {"outcomes": [{"exposure": id_, "value": 0}]})
    assert api.experiments.recorder.flush(20)
    lines = dict(line.rsplit(" ", 1) for line in api.http.get("/metrics").text.splitlines() if line[0] != "#")
    assert float(lines["steering_experiments_running"]) == 1
    assert float(lines["steering_exposures_stored_total"]) >= 1
    assert float(lines["steering_exposures_lost_total"]) == 0
    assert float(lines["steering_exposures_queued"]) == 0
    assert float(lines["steering_outcomes_stored_total"]) >= 1
    assert float(lines['steering_experiment_requests_left_out_total{reason="no_unit"}']) >= 1


def test_bodies_are_described(api: Api):
    described = api.http.get("/openapi.json").json()
    assert described["components"]["schemas"]["OutcomesBody"]["properties"]["outcomes"]["maxItems"] == 5_000
    paths = [path for path in described["paths"] if path.startswith("/v1/experiments")]
    assert len(paths) == 9
