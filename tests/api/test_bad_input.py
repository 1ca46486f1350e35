"""Invalid requests are answered with a 4xx that names the field, and the server continues."""

import json

import httpx
import pytest
from pydantic import ValidationError

from steering_server.api.schemas.requests import ChatBody, CompletionBody

GOOD = {"prompt": "x", "max_tokens": 2}

REFUSED = {
    "no prompt": ({"prompt": None}, "prompt", "required"),
    "empty prompt": ({"prompt": ""}, "prompt", "empty"),
    "empty list of prompts": ({"prompt": []}, "prompt", "at least 1"),
    "a prompt without tokens": ({"prompt": [[], [5]]}, "prompt.0", "must have at least 1 item, not 0"),
    "prompt of another type": ({"prompt": {"text": "x"}}, "prompt", "valid string"),
    "mixed prompts": ({"prompt": ["x", 1]}, "prompt.1", "valid string"),
    "token outside the vocabulary": ({"prompt": [5, 260]}, "prompt", "0..259"),
    "negative token": ({"prompt": [-1]}, "prompt.0", "greater than or equal to 0"),
    "prompt longer than the context": ({"prompt": "x" * 600}, "prompt", "context holds 512"),
    "completion longer than the context": ({"max_tokens": 512}, "max_tokens", "511 more"),
    "lone surrogate": ({"prompt": "\ud800"}, "prompt", "surrogate"),
    "negative max_tokens": ({"max_tokens": -1}, "max_tokens", "greater than or equal to 0"),
    "no tokens and no echo": ({"max_tokens": 0}, "max_tokens", "only with echo"),
    "number as text": ({"max_tokens": "5"}, "max_tokens", "valid integer"),
    "boolean as number": ({"max_tokens": True}, "max_tokens", "valid integer"),
    "fraction": ({"n": 1.5}, "n", "valid integer"),
    "n of none": ({"n": 0}, "n", "greater than or equal to 1"),
    "too many prompts": ({"prompt": ["x"] * 1025}, "prompt", "at most 1024 sequences"),
    "too many prompts of tokens": ({"prompt": [[1]] * 1025}, "prompt", "at most 1024 sequences"),
    "too many draws": ({"n": 64, "prompt": ["x"] * 17}, "n", "17 prompts x 64 draws make 1088 sequences"),
    "too many prompts with arms": (
        {"prompt": ["x"] * 400, "arms": ["baseline", "heads", "final"]},
        "prompt",
        "400 prompts x 3 arms make 1200 sequences; at most 1024",
    ),
    "a number in quotes": ({"temperature": "0"}, "temperature", 'must be a valid number (given: the string "0")'),
    "temperature too high": ({"temperature": 2.1}, "temperature", "less than or equal to 2"),
    "temperature as text": ({"temperature": "hot"}, "temperature", "valid number"),
    "top_p of nothing": ({"top_p": 0}, "top_p", "greater than 0"),
    "empty stop": ({"stop": [""]}, "stop.0", "at least 1 character"),
    "too many stops": ({"stop": ["x"] * 65}, "stop", "at most 64"),
    "seed too large": ({"seed": 2**63}, "seed", "less than"),
    "logprobs too many": ({"logprobs": 21}, "logprobs", "less than or equal to 20"),
    "stream as text": ({"stream": "yes"}, "stream", "valid boolean"),
    "unknown field": ({"max_token": 5}, "max_token", "unknown field"),
    "unknown field inside": ({"steering": {"profile": "heads", "power": 2}}, "steering.power", "unknown field"),
    "unknown field of no value": ({"max_token": None}, "max_token", "unknown field"),
    "what is not supported": ({"suffix": "end"}, "suffix", "not supported"),
    "best of fewer than n": ({"n": 3, "best_of": 2}, "best_of", "less than n"),
    "top_k past any vocabulary": ({"top_k": 10**400}, "top_k", "less than or equal to 2147483647"),
    "token past any vocabulary": ({"prompt": [10**400]}, "prompt", "0..259"),
    "penalty too small to compute with": ({"repetition_penalty": 1e-300}, "repetition_penalty", "equal to 0.01"),
    "penalty too large": ({"frequency_penalty": 3}, "frequency_penalty", "less than or equal to 2"),
    "bias on no token": ({"logit_bias": {"x": 1}}, "logit_bias.x", "pattern"),
    "bias outside the vocabulary": ({"logit_bias": {"260": 1}}, "logit_bias", "0..259"),
    "biases too many": ({"logit_bias": dict.fromkeys(map(str, range(1025)), 1)}, "logit_bias", "at most 1024"),
    "more tokens than at most": ({"min_tokens": 3}, "min_tokens", "more than max_tokens"),
    "steering without profile": ({"steering": {"strength": 1}}, "steering.profile", "required"),
    "steering as text": ({"steering": "heads"}, "steering", "JSON object"),
    "strength too large": ({"steering": {"profile": "heads", "strength": 11}}, "steering.strength", "equal to 10"),
    "strength as text": ({"steering": {"profile": "heads", "strength": "1"}}, "steering.strength", "valid number"),
    "profile named twice": ({"steering": {"profile": ["heads", "heads"]}}, "steering.profile", "twice"),
    "no arms": ({"arms": []}, "arms", "at least 1"),
    "too many arms": ({"arms": ["baseline"] * 33}, "arms", "at most 32"),
    "equal arms": ({"arms": ["heads", "heads"]}, "arms.1", "used twice"),
    "arms and steering": ({"arms": ["heads"], "steering": {"profile": "heads"}}, "arms", "one of them"),
    "arms and steered model": ({"arms": ["heads"], "model": "tiny-llama+heads"}, "arms", "one of them"),
    "arm name with a line break": ({"arms": [{"profile": "heads", "name": "a\nb"}]}, "arms.0.name", "pattern"),
}

NOT_FOUND = {
    "model": ({"model": "gpt-9"}, "model", "tiny-llama"),
    "profile in the model's name": ({"model": "tiny-llama+nope"}, "model", "final, heads"),
    "profile": ({"steering": {"profile": "nope"}}, "steering.profile", "final, heads"),
    "profile of an arm": ({"arms": ["baseline", "nope"]}, "arms.1", "final, heads"),
    "profile by path": ({"steering": {"profile": "../heads.json"}}, "steering.profile", "final, heads"),
}


def error_of(response: httpx.Response) -> dict:
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


@pytest.fixture(autouse=True)
def _still_serving(http):
    yield
    assert http.post("/v1/completions", json=GOOD).status_code == 200


@pytest.mark.parametrize(("body", "param", "says"), REFUSED.values(), ids=REFUSED)
def test_an_invalid_value_is_a_400_that_names_the_field_and_what_is_allowed(http, body, param, says):
    response = http.post(
        "/v1/completions", content=json.dumps(GOOD | body), headers={"content-type": "application/json"}
    )
    assert response.status_code == 400, response.text
    error = error_of(response)
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param, error
    assert says in error["message"]
    assert param in error["message"]


@pytest.mark.parametrize(("body", "param", "known"), NOT_FOUND.values(), ids=NOT_FOUND)
def test_an_unknown_model_or_profile_is_a_404_that_lists_the_known_ones(http, body, param, known):
    response = http.post("/v1/completions", json=GOOD | body)
    assert response.status_code == 404, response.text
    error = error_of(response)
    assert (error["type"], error["param"]) == ("not_found_error", param)
    assert known in error["message"]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_strength_that_is_not_a_number_is_refused_by_name(http, number):
    body = f'{{"prompt": "x", "steering": {{"profile": "heads", "strength": {number}}}}}'
    response = http.post("/v1/completions", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert error_of(response)["param"] == "steering.strength"


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'"x"', b"null", b"\xff\xfe", b"[" * 100_000, b'{"prompt": "x", "n": ' + b"9" * 5000 + b"}"],
    ids=["empty", "cut off", "list", "text", "null", "not UTF-8", "deeply nested", "huge number"],
)
@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_a_body_that_is_not_a_json_object_is_a_400(http, path, body):
    response = http.post(path, content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400, response.text
    assert error_of(response)["type"] == "invalid_request_error"


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_a_body_without_a_json_content_type_is_a_400_that_asks_for_it(http, content_type):
    headers = {"content-type": content_type} if content_type else {}
    response = http.post("/v1/completions", content=json.dumps(GOOD).encode(), headers=headers)
    assert response.status_code == 400
    assert "application/json" in error_of(response)["message"]


@pytest.mark.parametrize("key", ["logit_bias", "steering", "stream_options"])
def test_a_lone_surrogate_in_the_name_of_a_field_is_refused(http, key):
    body = f'{{"prompt": "x", "{key}": {{"\\ud800": 1}}}}'
    response = http.post("/v1/completions", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert error_of(response)["param"].startswith(key)


def test_a_body_larger_than_the_limit_is_a_413(http):
    response = http.post("/v1/completions", json={"prompt": "x" * (17 * 2**20)})
    assert response.status_code == 413
    assert "16 MiB" in error_of(response)["message"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/completions", 405), ("GET", "/v2/models", 404), ("GET", "/v1/profiles/nope", 404),
     ("GET", "/v1/models/nope", 404), ("GET", "/v1/profiles/..%2Fheads", 404)],
)  # fmt: skip
def test_an_unknown_route_is_answered_in_the_same_format(http, method, path, status):
    response = http.request(method, path)
    assert response.status_code == status
    error_of(response)


CHAT_REFUSED = {
    "no messages": ({"messages": []}, "messages"),
    "unknown role": ({"messages": [{"role": "critic", "content": "x"}]}, "messages.0.role"),
    "no content": ({"messages": [{"role": "user"}]}, "messages.0.content"),
    "an image": ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0.content.0.type"),
    "top_logprobs alone": ({"top_logprobs": 2}, "top_logprobs"),
    "a tool without a function": ({"tools": [{"type": "function"}]}, "tools.0.function"),
    "reasoning": ({"reasoning_effort": "high"}, "reasoning_effort"),
    "unknown field of a message": ({"messages": [{"role": "user", "content": "x", "mood": None}]}, "messages.0.mood"),
    "longer than the context": ({"messages": [{"role": "user", "content": "x" * 600}]}, "messages"),
}


@pytest.mark.parametrize(("body", "param"), CHAT_REFUSED.values(), ids=CHAT_REFUSED)
def test_an_invalid_chat_request_is_a_400_that_names_the_field(http, body, param):
    good = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 2}
    response = http.post("/v1/chat/completions", json=good | body)
    assert response.status_code == 400, response.text
    assert error_of(response)["param"] == param


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        (CompletionBody, {"prompt": [-1] * 1000}),
        (CompletionBody, {"prompt": [[-1] * 1000]}),
        (CompletionBody, {"prompt": "x", "stop": [1] * 1000}),
        (CompletionBody, {"prompt": "x", "steering": {"profile": [1] * 1000}}),
        (CompletionBody, {"prompt": "x", "logit_bias": dict.fromkeys(map("x{}".format, range(2000)), 1)}),
        (ChatBody, {"messages": [{"role": "x"}] * 1000}),
        (ChatBody, {"messages": [{"role": "user", "content": [{}] * 1000}]}),
    ],
    ids=["tokens", "prompts", "stops", "profiles", "biases", "messages", "parts"],
)
def test_values_after_the_first_invalid_one_are_not_validated(body, wrong):
    """A body can have millions of values, and validating all of them would block the server."""
    with pytest.raises(ValidationError) as caught:
        body.model_validate(wrong)
    assert caught.value.error_count() < 10
