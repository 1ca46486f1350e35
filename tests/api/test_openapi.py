"""Requests generated from the server's own OpenAPI description are answered as it says, streamed events included."""

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import pytest
import schemathesis
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from steering_server.experiments.database import Database, parse_database_url, sqlite_url
from steering_server.experiments.live import Experiments
from tests.builders import build_model, profiles_for
from tests.serving import serving

STREAMED = ("/v1/completions", "/v1/chat/completions", "/v1/responses")

REASONS = {
    "what a schema cannot say about one field": r"outside the vocabulary|context|is empty|chat template",
    "what it cannot say about several": r"min_tokens: |cannot be streamed|needs logprobs|best_of: |only with echo"
    r"|differs from|must be false|less than n|only an assistant's|at most 1024 sequences|unless there|together with"
    r"|no function_call before",
    "what it cannot say about a profile": r"does not change|do not change|baseline has no components",
}
"""Reasons for which a body that the description allows is refused all the same."""


SHORT = {
    "/v1/completions": {"prompt": "hello"},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "hello"}]},
    "/v1/responses": {"input": "hello"},
}
DEPENDENT = ("logit_bias", "min_tokens", "best_of", "prompt_logprobs", "top_logprobs", "continue_final_message")
"""Fields whose values depend on other fields or on the model, so that most generated ones are refused."""

WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
FORMS: tuple[dict[str, Any], ...] = (
    {},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "boolean"}}}},
    {"structured_outputs": {"choice": ["yes", "no"]}},
    {"guided_regex": "[ab]+"},
)
FLAT = {"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}}


def calls(tool: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    return ({}, {"tools": [tool]}, {"tools": [tool], "tool_choice": "required"})


TOLD: dict[str, tuple[dict[str, Any], ...]] = {
    "/v1/completions": FORMS,
    "/v1/chat/completions": FORMS[:2] + calls(WEATHER),
    "/v1/responses": calls(FLAT),
}
"""What each route is told of the form of its answers."""
FORM_FIELDS = (
    "response_format", "structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar",
    "tools", "tool_choice", "text",
)  # fmt: skip
"""Fields that hold schemas and expressions, of which a description cannot say which are enforced."""


@pytest.fixture
def own_url(tmp_path: Path) -> Iterator[str]:
    """A server whose profiles and experiments generated requests may change."""
    model = build_model("llama", dtype=torch.float32)
    experiments = Experiments(Database(parse_database_url(sqlite_url(tmp_path / "experiments.sqlite"))))
    with serving(model, tmp_path, profiles_for(model), experiments=experiments) as url:
        yield url


@cache
def description(url: str) -> dict[str, Any]:
    return httpx.get(f"{url}/openapi.json").json()


def check_events(url: str, path: str, text: str) -> int:
    """Check every event of a stream against its description; return their number."""
    described = description(url)
    content = described["paths"][path]["post"]["responses"]["200"]["content"]["text/event-stream"]
    schema = content["itemSchema"]["properties"]["data"]["contentSchema"] | {"components": described["components"]}
    validator = jsonschema_rs.Draft202012Validator(schema)
    events = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    for event in events:
        if event != "[DONE]":
            validator.validate(json.loads(event))
    return len(events)


def check_answer(url: str, case: schemathesis.Case) -> int:
    """Send one request and check its answer; return the status."""
    response = case.call(timeout=60)
    assert response.status_code < 500, response.text
    if "text/event-stream" in response.headers["content-type"][0] and response.status_code == 200:
        assert check_events(url, case.operation.path, response.text) > 0
    else:
        case.operation.validate_response(response)
    return response.status_code


def run(url: str, examples: int) -> int:
    """Send ``examples`` requests to every route; return the number of requests."""
    sent = 0
    for found in schemathesis.openapi.from_url(f"{url}/openapi.json").get_all_operations():
        operation = found.ok()

        @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        @given(case=operation.as_strategy())
        def check(case: schemathesis.Case) -> None:
            nonlocal sent
            sent += 1
            check_answer(url, case)

        check()
    return sent


def plausible(path: str, body: dict[str, Any], data: st.DataObject) -> dict[str, Any]:
    """Return a generated body with names that exist and few tokens, so that most are answered."""
    named = {key: body[key] for key in body if key not in ("model", "steering", "arms", "experiment", *FORM_FIELDS)}
    named |= data.draw(st.sampled_from(TOLD[path]))
    choice = data.draw(st.sampled_from([{}, {"model": "tiny-llama+heads"}, {"arms": ["baseline", "heads"]},
                                        {"steering": {"profile": "final", "strength": 0.5}}]))  # fmt: skip
    limit = {"/v1/responses": "max_output_tokens"}.get(path, "max_tokens")
    named.pop("max_completion_tokens", None)
    if "messages" in named:
        named["messages"] = [message | {"content": message.get("content") or "x"} for message in named["messages"]]
    if data.draw(st.booleans()):
        named = {key: value for key, value in named.items() if key not in DEPENDENT} | SHORT[path]
    return named | choice | {limit: data.draw(st.integers(1, 4)), "stream": data.draw(st.booleans())}


def run_plausible(url: str, path: str, examples: int) -> dict[int, int]:
    """Send bodies that the description allows to a route that generates text; return the number of each status."""
    statuses: dict[int, int] = {}
    operation = schemathesis.openapi.from_url(f"{url}/openapi.json")[path]["POST"]

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(case=operation.as_strategy(), data=st.data())
    def check(case: schemathesis.Case, data: st.DataObject) -> None:
        case.body = plausible(path, case.body, data)
        response = case.call(timeout=60)
        statuses[response.status_code] = statuses.get(response.status_code, 0) + 1
        if response.status_code == 400:
            message = response.json()["error"]["message"]
            assert any(re.search(reason, message) for reason in REASONS.values()), (case.body, message)
        else:
            assert response.status_code == 200, response.text
            if case.body["stream"]:
                assert check_events(url, path, response.text) > 0

    check()
    return statuses


def test_requests_of_any_kind_are_answered_as_described(own_url):
    assert run(own_url, 20) > 100


@pytest.mark.parametrize("path", STREAMED)
def test_bodies_that_the_description_allows_are_answered(url, path):
    statuses = run_plausible(url, path, 30)
    assert statuses[200] > 0, statuses


def test_the_bounds_of_integers_are_exact(url):
    properties = description(url)["components"]["schemas"]["CompletionBody"]["properties"]
    seed = properties["seed"]["anyOf"][0]
    assert (seed["minimum"], seed["exclusiveMaximum"]) == (-(2**63), 2**63)
    assert isinstance(seed["exclusiveMaximum"], int)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_five_thousand_requests_are_answered_as_described(own_url):
    sent = sum(sum(run_plausible(own_url, path, 900).values()) for path in STREAMED)
    assert sent + run(own_url, 350) >= 5000  # last, because it changes the profiles


@pytest.mark.parametrize("path", STREAMED)
def test_an_error_in_a_stream_is_an_event_that_is_described(http, url, path, monkeypatch: pytest.MonkeyPatch):
    from steering_server.engines.local.runner import Runner

    compute, steps = Runner.run, iter(range(1000))

    def failing(self, inputs):
        if next(steps) == 3:
            raise RuntimeError("out of luck")
        return compute(self, inputs)

    monkeypatch.setattr(Runner, "run", failing)
    body = {"/v1/completions": {"prompt": "x", "max_tokens": 9}, "/v1/responses": {"input": "x"}}.get(
        path, {"messages": [{"role": "user", "content": "x"}], "max_tokens": 9}
    )
    response = http.post(path, json=body | {"stream": True, "arms": ["baseline", "heads"]})
    assert "out of luck" in response.text
    assert check_events(url, path, response.text) > 1


def test_bounds_of_numbers_are_described_as_json_schema_does(http):
    found = json.dumps(http.get("/openapi.json").json())
    assert not re.search(r'"(ge|le|gt|lt|multiple_of)":', found)
    temperature = http.get("/openapi.json").json()["components"]["schemas"]["CompletionBody"]["properties"][
        "temperature"
    ]
    assert {"type": "number", "minimum": 0, "maximum": 2} in temperature["anyOf"]
