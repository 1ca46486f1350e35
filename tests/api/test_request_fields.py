"""Fields that clients send: what has no effect is accepted and named; what would have one is never ignored."""

from pathlib import Path

import httpx
import pytest
import torch

from steering_server.api.schemas.requests import ChatBody, CompletionBody
from steering_server.api.schemas.strict import Ignored, Neutral
from steering_server.api.settings import ApiSettings
from tests.builders import build_model
from tests.serving import serving

COMPLETION = {"prompt": "print(1", "max_tokens": 3, "temperature": 0}
CHAT = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 3, "temperature": 0}
ROUTES = {"/v1/completions": (CompletionBody, COMPLETION), "/v1/chat/completions": (ChatBody, CHAT)}

BOOKKEEPING = {
    "store": True,
    "metadata": {"run": "7"},
    "safety_identifier": "me",
    "service_tier": "flex",
    "prompt_cache_key": "key",
    "prompt_cache_retention": "24h",
    "request_id": "r1",
}


def marked(kind: type) -> list[tuple[str, str, object]]:
    """Return route, field and mark of every field of ``kind``."""
    return [
        (route, name, mark)
        for route, (body, _) in ROUTES.items()
        for name, field in body.model_fields.items()
        for mark in field.metadata
        if isinstance(mark, kind)
    ]


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(("field", "value"), BOOKKEEPING.items())
def test_bookkeeping_is_accepted_and_named_in_a_header(http, route, field, value):
    body = ROUTES[route][1]
    answer = http.post(route, json=body | {field: value})
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-steering-ignored"] == field
    assert answer.json()["choices"] == http.post(route, json=body).json()["choices"]


@pytest.mark.parametrize("route", ROUTES)
def test_empty_bookkeeping_goes_unmentioned(http, route):
    empty = {"store": False, "metadata": {}, "user": "", "service_tier": "auto", "prompt_cache_key": None}
    answer = http.post(route, json=ROUTES[route][1] | empty)
    assert answer.status_code == 200, answer.text
    assert "x-steering-ignored" not in answer.headers


def test_a_stream_names_what_it_ignores_too(http):
    body = COMPLETION | {"stream": True, "stream_options": {"include_obfuscation": True}, "store": True}
    assert http.post("/v1/completions", json=body).headers["x-steering-ignored"] == (
        "store, stream_options.include_obfuscation"
    )


@pytest.mark.parametrize("route", ROUTES)
def test_every_neutral_value_is_accepted_in_silence(http, route):
    neutral = {name: mark.values[0] for at, name, mark in marked(Neutral) if at == route and mark.values}
    assert len(neutral) > 20
    answer = http.post(route, json=ROUTES[route][1] | neutral)
    assert answer.status_code == 200, answer.text
    assert "x-steering-ignored" not in answer.headers


@pytest.mark.parametrize(("route", "field", "mark"), marked(Neutral))
def test_a_value_that_would_have_an_effect_is_refused_by_name(http, route, field, mark):
    answer = http.post(route, json=ROUTES[route][1] | {field: "something else"})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == field
    assert "not supported by this server; leave it out or send null" in error["message"]


@pytest.mark.parametrize(
    ("field", "value"),
    [("skip_special_tokens", False), ("use_beam_search", True), ("length_penalty", 1.5), ("priority", 1),
     ("allowed_token_ids", [5]), ("bad_words", ["x"]), ("skip_special_tokens", 1), ("suffix", "end")],
)  # fmt: skip
def test_constraints_that_would_not_hold_are_refused(http, field, value):
    error = http.post("/v1/completions", json=COMPLETION | {field: value}).json()["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", field)


def test_every_field_is_in_the_openapi_description(http):
    schemas = http.get("/openapi.json").json()["components"]["schemas"]
    for route, name, mark in [*marked(Neutral), *marked(Ignored)]:
        described = schemas[ROUTES[route][0].__name__]["properties"][name]
        if isinstance(mark, Neutral):
            assert described["enum"] == [None, *mark.values]


def test_a_number_without_a_fraction_is_an_integer_however_it_is_written(http):
    written = '{"prompt": [120.0, 121], "max_tokens": 3.0, "n": 1.0, "temperature": 0, "top_k": 5.0}'
    answer = http.post("/v1/completions", content=written, headers={"content-type": "application/json"})
    plain = http.post("/v1/completions", json={"prompt": [120, 121], "max_tokens": 3, "temperature": 0, "top_k": 5})
    assert answer.json()["choices"] == plain.json()["choices"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"temperature": "0"}, 'temperature: must be a valid number (given: the string "0")'),
        ({"temperature": True}, "temperature: must be a valid number (given: true)"),
        ({"max_tokens": 1.5}, "max_tokens: must be a valid integer (given: 1.5)"),
        ({"max_tokens": "16"}, 'max_tokens: must be a valid integer (given: the string "16")'),
        ({"stream": "true"}, 'stream: must be a valid boolean (given: the string "true")'),
        ({"user": 5}, "user: must be a valid string (given: 5)"),
        ({"logit_bias": []}, "logit_bias: must be a JSON object (given: a list of 0)"),
        ({"steering": ["heads"]}, "steering: must be a JSON object (given: a list of 1)"),
        ({"max_token": 5}, "max_token: unknown field; did you mean max_tokens?"),
    ],
)
def test_a_message_says_what_was_given_and_of_which_type(http, body, says):
    assert http.post("/v1/completions", json=COMPLETION | body).json()["error"]["message"] == says


class TestMessages:
    """Messages as clients send them back."""

    def send(self, http: httpx.Client, *messages: dict) -> httpx.Response:
        return http.post("/v1/chat/completions", json=CHAT | {"messages": list(messages)})

    def test_an_assistants_message_may_have_no_content(self, http):
        user = {"role": "user", "content": "hi"}
        answer = self.send(http, user, {"role": "assistant", "content": None}, user)
        empty = self.send(http, user, {"role": "assistant", "content": ""}, user)
        assert answer.status_code == 200, answer.text
        assert answer.json()["choices"] == empty.json()["choices"]

    def test_others_need_one(self, http):
        error = self.send(http, {"role": "user", "content": None}).json()["error"]
        assert (error["param"], error["message"]) == (
            "messages.0.content",
            "messages.0.content: is required; only an assistant's message may have none",
        )

    @pytest.mark.parametrize("role", ["tool", "function", "developer", "system"])
    def test_every_role_that_the_template_renders_is_answered(self, http, role):
        answer = self.send(http, {"role": "user", "content": "2 + 2?"}, {"role": role, "content": "4"})
        assert answer.status_code == 200, answer.text

    def test_fields_that_the_template_does_not_read_are_named(self, http):
        part = {"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}
        answer = self.send(
            http,
            {"role": "user", "content": [part], "name": "ann"},
            {"role": "assistant", "content": "x", "reasoning_content": "hmm", "annotations": [], "refusal": None},
            {"role": "user", "content": "and?"},
        )
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-steering-ignored"] == (
            "messages.content.cache_control, messages.name, messages.reasoning_content"
        )

    def test_a_field_that_the_template_reads_reaches_it(self, tmp_path: Path):
        loaded = build_model("llama", dtype=torch.float32)
        template = "{% for message in messages %}{{ message.reasoning_content }}|{{ message['content'] }}{% endfor %}"
        loaded.tokenizer.chat_template = template
        message = {"role": "assistant", "content": "ab", "reasoning_content": "hmm"}
        with serving(loaded, tmp_path) as url:
            answer = httpx.post(f"{url}/v1/chat/completions", json=CHAT | {"messages": [message]})
        assert answer.json()["usage"]["prompt_tokens"] == len("hmm|ab")
        assert "x-steering-ignored" not in answer.headers


@pytest.fixture(scope="module")
def lenient(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("lenient")
    with serving(
        build_model("llama", dtype=torch.float32), folder, settings=ApiSettings(field_policy="lenient")
    ) as url:
        yield url


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("strict")
    with serving(build_model("llama", dtype=torch.float32), folder, settings=ApiSettings(field_policy="strict")) as url:
        yield url


class TestPolicies:
    """``--ignore-unknown-fields`` and ``--strict``."""

    def test_unknown_fields_are_left_out_and_named_in_a_warning(self, lenient):
        plain = httpx.post(f"{lenient}/v1/completions", json=COMPLETION)
        answer = httpx.post(
            f"{lenient}/v1/completions",
            json=COMPLETION | {"mood": "calm", "session": None, "stream_options": {"pace": 1}},
        )
        assert answer.json()["choices"] == plain.json()["choices"]
        assert answer.headers["warning"] == (
            '299 steering-server "unknown fields had no effect: mood, session, stream_options.pace"'
        )
        assert "warning" not in plain.headers

    def test_names_of_unknown_fields_cannot_break_the_header(self, lenient):
        names = {'a"b\\', "c\r\nset-cookie: x=1", "é", "", *map("field{}".format, range(200))}
        answer = httpx.post(f"{lenient}/v1/completions", json=COMPLETION | dict.fromkeys(names, 1))
        assert answer.status_code == 200
        assert "set-cookie" not in answer.headers
        assert answer.headers["warning"].isascii()
        assert len(answer.headers["warning"]) < 4000

    def test_a_value_that_would_have_an_effect_is_refused_all_the_same(self, lenient):
        error = httpx.post(f"{lenient}/v1/completions", json=COMPLETION | {"suffix": "end"}).json()["error"]
        assert error["param"] == "suffix"

    @pytest.mark.parametrize(("field", "value"), BOOKKEEPING.items())
    def test_a_strict_server_refuses_what_has_no_effect(self, strict, field, value):
        answer = httpx.post(f"{strict}/v1/completions", json=COMPLETION | {field: value})
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == field
        assert "--strict" in answer.json()["error"]["message"]

    def test_a_strict_server_accepts_neutral_values(self, strict):
        body = COMPLETION | {"store": False, "metadata": {}, "skip_special_tokens": True}
        assert httpx.post(f"{strict}/v1/completions", json=body).status_code == 200

    def test_a_strict_server_refuses_fields_that_the_template_does_not_read(self, strict):
        body = CHAT | {"messages": [{"role": "user", "content": "hi", "name": "ann"}]}
        answer = httpx.post(f"{strict}/v1/chat/completions", json=body)
        assert answer.json()["error"]["param"] == "messages.name"
