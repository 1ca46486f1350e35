"""Answers of a given form: JSON, JSON of a schema, regular expressions, choices and grammars."""

import json
import re
import time
from collections.abc import Iterator
from typing import Any, Literal

import httpx
import jsonschema_rs
import openai
import pytest
from hypothesis import HealthCheck, given, settings
from pydantic import BaseModel, Field

from tests.json_schemas import enforceable_schemas

NAME = "tiny-llama"
MESSAGES = [{"role": "user", "content": "hello"}]
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 2},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}


class Size(BaseModel):
    unit: Literal["cm", "inch"]
    height: int = Field(ge=1, le=300)


class Thing(BaseModel):
    name: str = Field(max_length=6)
    size: Size | None
    is_new: bool


def json_schema(schema: Any, **more: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, **more}}


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


def chat(client: openai.OpenAI, **fields: Any) -> Any:
    return client.chat.completions.create(**{"model": NAME, "messages": MESSAGES, "max_tokens": 150} | fields)


def complete(http: httpx.Client, **fields: Any) -> dict[str, Any]:
    answer = http.post("/v1/completions", json={"prompt": "hello", "max_tokens": 100} | fields)
    assert answer.status_code == 200, answer.text
    (choice,) = answer.json()["choices"]
    return choice


def test_json_mode_answers_with_an_object(client):
    choices = chat(client, response_format={"type": "json_object"}, n=16, seed=1).choices
    finished = [choice.message.content for choice in choices if choice.finish_reason == "stop"]
    assert finished
    assert all(isinstance(json.loads(text), dict) for text in finished)


@pytest.mark.parametrize("temperature", [0, 1])
def test_an_answer_is_valid_under_its_schema(client, temperature):
    form = json_schema(PERSON, strict=True)
    for choice in chat(client, response_format=form, n=4, seed=3, temperature=temperature).choices:
        assert choice.finish_reason == "stop"
        jsonschema_rs.validate(PERSON, json.loads(choice.message.content))


def test_a_pydantic_model_is_parsed(client):
    answer = client.chat.completions.parse(
        model=NAME, messages=MESSAGES, response_format=Thing, seed=5, max_tokens=200, n=3
    )
    for choice in answer.choices:
        assert isinstance(choice.message.parsed, Thing)
        assert len(choice.message.parsed.name) <= 6


def test_a_pydantic_model_is_parsed_from_a_stream(client):
    with client.chat.completions.stream(
        model=NAME, messages=MESSAGES, response_format=Thing, seed=5, max_tokens=200
    ) as stream:
        for _ in stream:
            pass
        assert isinstance(stream.get_final_completion().choices[0].message.parsed, Thing)


def test_a_streamed_answer_is_the_unstreamed_one(client):
    fields = {"response_format": json_schema(PERSON), "seed": 9}
    whole = chat(client, **fields).choices[0]
    chunks = [chunk.choices[0] for chunk in chat(client, stream=True, **fields)]
    assert "".join(chunk.delta.content or "" for chunk in chunks) == whole.message.content
    assert chunks[-1].finish_reason == whole.finish_reason == "stop"


def test_a_steered_arm_follows_the_schema_beside_an_unsteered_one_and_both_are_as_alone(client):
    fields = {"response_format": json_schema(PERSON), "seed": 2, "logprobs": True}
    answer = chat(client, extra_body={"arms": ["baseline", "heads"]}, **fields)
    texts = {choice.arm: choice.message.content for choice in answer.choices}
    for text in texts.values():
        jsonschema_rs.validate(PERSON, json.loads(text))
    assert texts["baseline"] != texts["heads"]
    assert texts == {
        "baseline": chat(client, **fields).choices[0].message.content,
        "heads": chat(client, **fields | {"model": f"{NAME}+heads"}).choices[0].message.content,
    }
    assert answer.comparison["pairs"][0]["logprobs"].keys() == texts.keys()


def test_an_answer_that_is_cut_off_ends_with_length(client):
    (choice,) = chat(client, response_format=json_schema(PERSON), max_tokens=5).choices
    assert choice.finish_reason == "length"


def test_every_finished_answer_is_valid_under_generated_schemas(url):
    finished = []

    @settings(max_examples=15, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(schema=enforceable_schemas)
    def check(schema: dict[str, Any]) -> None:
        body = {"messages": MESSAGES, "response_format": json_schema(schema), "n": 3, "seed": 1, "max_tokens": 50}
        answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60)
        assert answer.status_code == 200, answer.text
        validator = jsonschema_rs.validator_for(schema, validate_formats=True)
        for choice in answer.json()["choices"]:
            if choice["finish_reason"] == "stop":
                finished.append(choice)
                assert validator.is_valid(json.loads(choice["message"]["content"])), choice

    check()
    assert len(finished) > 15


FORMS = {
    "regex": ({"structured_outputs": {"regex": "[a-f]{3}(/|x)[0-9]+"}}, r"[a-f]{3}(/|x)[0-9]+"),
    "choice": ({"structured_outputs": {"choice": ["yes", 'n"o']}}, 'yes|n"o'),
    "grammar": ({"structured_outputs": {"grammar": 'start: "a" b+\nb: "b" "c"?'}}, "a(bc?)+"),
    "json": ({"structured_outputs": {"json": {"enum": [12, True]}}}, "12|true"),
    "json as text": ({"structured_outputs": {"json": '{"const": null}'}}, "null"),
    "json object": ({"structured_outputs": {"json_object": True}}, r"\{[\s\S]*\}"),
    "guided_json": ({"guided_json": {"type": "boolean"}}, "true|false"),
    "guided_regex": ({"guided_regex": "(?i)ab|cd"}, "(?i)ab|cd"),
    "guided_choice": ({"guided_choice": ["north", "south"]}, "north|south"),
    "guided_grammar": ({"guided_grammar": "start: /[xy]{2}/"}, "[xy]{2}"),
    "response_format": ({"response_format": json_schema({"const": "ü"})}, '"ü"'),
}


@pytest.mark.parametrize(("fields", "pattern"), FORMS.values(), ids=FORMS.keys())
def test_a_completion_has_the_form_that_is_asked_for(http, fields, pattern):
    choices = [complete(http, seed=seed, max_tokens=300, **fields) for seed in range(3)]
    finished = [choice["text"] for choice in choices if choice["finish_reason"] == "stop"]
    assert finished
    assert all(re.fullmatch(pattern, text) for text in finished)


def test_an_object_that_names_its_properties_gets_no_others(http):
    schema = {"type": "object", "properties": {"a": {"type": "boolean"}}}
    texts = {complete(http, guided_json=schema, seed=seed)["text"] for seed in range(8)}
    assert {frozenset(json.loads(text)) for text in texts} <= {frozenset(), frozenset("a")}


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "an unknown type": ({"response_format": {"type": "xml"}}, "response_format", "'json_schema'"),
    "no schema": ({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}, "schema", "required"),
    "a keyword": (
        {"response_format": json_schema({"properties": {"a": {"type": "array", "uniqueItems": True}}})},
        "response_format.json_schema.schema",
        "properties.a.uniqueItems: this keyword is not supported",
    ),
    "a keyword without a name": ({"guided_json": {"": 1}}, "guided_json", "guided_json.'': this keyword"),
    "a long keyword": ({"guided_json": {"k" * 9000: 1}}, "guided_json", "k': this keyword is not supported"),
    "an unprintable keyword": ({"guided_json": {"a\nb": 1}}, "guided_json", r"guided_json.'a\nb': this keyword"),
    "an unknown keyword": ({"guided_json": {"typ": "string"}}, "guided_json", "guided_json.typ"),
    "a format": ({"guided_json": {"type": "string", "format": "regex"}}, "guided_json", "supported: "),
    "a lookahead": ({"guided_json": {"type": "string", "pattern": "(?=a)"}}, "guided_json", "look-around"),
    "an unknown reference": ({"guided_json": {"$ref": "#/$defs/a"}}, "guided_json", "does not exist"),
    "a foreign reference": ({"guided_json": {"$ref": "http://127.0.0.1:1/x"}}, "guided_json", "not present"),
    "a contradiction": ({"guided_json": {"type": "integer", "minimum": 2, "maximum": 1}}, "guided_json", "minimum"),
    "an overlapping oneOf": (
        {"guided_json": {"oneOf": [{"type": "integer"}, {"type": "number"}]}},
        "guided_json",
        "oneOf",
    ),
    "a schema that is text": ({"guided_json": "no"}, "guided_json", "not a JSON Schema"),
    "endless nesting": ({"guided_json": {"$ref": "#"}}, "guided_json", "allows no text"),
    "a long computation": ({"guided_json": {"multipleOf": 999983, "type": "integer"}}, "guided_json", "to compile"),
    "many properties": (
        {"guided_json": {"properties": {f"p{i}": True for i in range(1001)}}},
        "guided_json",
        "1000 properties",
    ),
    "a deep schema": (
        {"guided_json": json.loads('{"items":' * 40 + "{}" + "}" * 40)},
        "guided_json",
        "nested",
    ),
    "an invalid expression": ({"guided_regex": "a("}, "guided_regex", "unclosed"),
    "an invalid grammar": ({"guided_grammar": "start: foo"}, "guided_grammar", "foo"),
    "the empty text": ({"guided_regex": "(){3}"}, "guided_regex", "empty text"),
    "two forms": ({"guided_regex": "a", "guided_choice": ["a"]}, "guided_choice", "guided_regex"),
    "two forms in one": ({"structured_outputs": {"regex": "a", "choice": ["a"]}}, "structured_outputs", "one of"),
    "a structural tag": ({"structured_outputs": {"structural_tag": "x"}}, "structural_tag", "not supported"),
}


@pytest.mark.parametrize(("fields", "param", "message"), REFUSED.values(), ids=REFUSED.keys())
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_what_cannot_be_enforced_is_refused_by_name(http, fields, param, message, stream):
    started = time.monotonic()
    answer = http.post("/v1/chat/completions", json={"messages": MESSAGES, "stream": stream, **fields})
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert param in error["param"]
    assert message in error["message"]
    assert len(error["message"]) < 700
    assert time.monotonic() - started < 10


def test_annotations_are_accepted(http):
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "T",
        "description": "d",
        "type": "object",
        "properties": {"n": {"type": "integer", "format": "int32", "default": 1, "examples": [2], "x-order": 1}},
        "required": ["n"],
    }
    assert abs(json.loads(complete(http, guided_json=schema)["text"])["n"]) < 2**31
