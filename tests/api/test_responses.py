"""``POST /v1/responses`` through the official ``openai`` package: text in, text out, whole and streamed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import httpx
import openai
import pytest
import torch
from openai.types.responses import ResponseOutputMessage, ResponseTextDeltaEvent
from pydantic import BaseModel

from tests.builders import build_model, build_profile
from tests.serving import serving

NAME = "tiny-llama"
ASK = {"model": NAME, "input": "hello", "max_output_tokens": 8, "temperature": 0}


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


def chat_text(client: openai.OpenAI, messages: list[dict], model: str = NAME) -> str:
    answer = client.chat.completions.create(model=model, messages=messages, max_tokens=8, temperature=0)
    return answer.choices[0].message.content


def test_a_text_is_answered_as_a_users_message(client):
    answer = client.responses.create(**ASK)
    assert answer.output_text == chat_text(client, [{"role": "user", "content": "hello"}])
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (len("<|user|>hello\n<|assistant|>"), 8)
    assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens")


def test_instructions_are_a_system_message_before_the_input(client):
    answer = client.responses.create(**ASK, instructions="be brief")
    expected = chat_text(client, [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}])
    assert answer.output_text == expected
    assert answer.instructions == "be brief"


def test_an_answer_can_be_sent_back_as_it_was_received(client):
    first = client.responses.create(**ASK)
    conversation = [
        {"role": "user", "content": [{"type": "input_text", "text": "hello"}]},
        *[item.model_dump() for item in first.output],
        {"role": "user", "content": "and?"},
    ]
    answer = client.responses.create(**ASK | {"input": conversation})
    plain = [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": first.output_text},
        {"role": "user", "content": "and?"},
    ]
    assert answer.output_text == chat_text(client, plain)


def test_a_model_that_ends_its_text_completes_the_response(tmp_path: Path):
    loaded = build_model("llama", dtype=torch.float32)
    with torch.no_grad():
        loaded.model.lm_head.weight[loaded.tokenizer.eos_token_id] *= 50
    with serving(loaded, tmp_path) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="none") as client:
        answer = client.responses.create(**ASK | {"temperature": 1, "max_output_tokens": 200}, extra_body={"seed": 1})
        streamed = list(
            client.responses.create(
                **ASK | {"temperature": 1, "max_output_tokens": 200}, extra_body={"seed": 1}, stream=True
            )
        )
    assert (answer.status, answer.incomplete_details) == ("completed", None)
    assert answer.completed_at is not None
    assert streamed[-1].type == "response.completed"
    assert streamed[-1].response.output_text == answer.output_text


def test_the_events_of_a_stream_are_those_of_openai_in_their_order(client):
    events = list(client.responses.create(**ASK, stream=True))
    kinds = [event.type for event in events]
    deltas = [event for event in events if isinstance(event, ResponseTextDeltaEvent)]
    assert kinds == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * len(deltas),
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    whole = client.responses.create(**ASK)
    done, item, ended = events[-4], events[-2], events[-1]
    assert "".join(event.delta for event in deltas) == done.text == whole.output_text
    assert isinstance(item.item, ResponseOutputMessage)
    assert {event.item_id for event in deltas} == {item.item.id} == {ended.response.output[0].id}
    assert ended.response.usage == whole.usage
    assert events[0].response.id == ended.response.id


def test_every_event_is_named_as_its_type(http):
    text = http.post("/v1/responses", json=ASK | {"stream": True}).text
    blocks = [dict(line.split(": ", 1) for line in block.split("\n")) for block in text.strip().split("\n\n")]
    assert all(f'"type":"{block["event"]}"' in block["data"] for block in blocks)
    assert "[DONE]" not in text


def test_the_helper_for_streams_gives_the_final_response(client):
    with client.responses.stream(**ASK) as stream:
        texts = [event.delta for event in stream if event.type == "response.output_text.delta"]
        try:
            final = stream.get_final_response()
        except RuntimeError:  # the helper knows a completed response only
            final = None
    assert "".join(texts) == client.responses.create(**ASK).output_text
    assert final is None or final.output_text == "".join(texts)


def test_the_models_name_selects_a_profile(client):
    answer = client.responses.create(**ASK | {"model": f"{NAME}+heads"})
    assert answer.output_text == chat_text(client, [{"role": "user", "content": "hello"}], f"{NAME}+heads")
    assert answer.output_text != client.responses.create(**ASK).output_text
    assert answer.steering["profile"] == "heads"


def test_each_arm_is_a_message_of_the_output(client):
    arms = {"arms": ["baseline", "heads"]}
    answer = client.responses.create(**ASK, extra_body=arms)
    single = [client.responses.create(**ASK | {"model": name}).output_text for name in (NAME, f"{NAME}+heads")]
    assert [item.arm for item in answer.output] == ["baseline", "heads"]
    assert [item.content[0].text for item in answer.output] == single
    assert answer.comparison["pairs"][0]["arms"] == ["baseline", "heads"]
    texts = ["", ""]
    for event in client.responses.create(**ASK, extra_body=arms, stream=True):
        if event.type == "response.output_text.delta":
            texts[event.output_index] += event.delta
    assert texts == single


def test_log_probabilities_come_if_they_are_included(client):
    asked = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
    scored = client.responses.create(**ASK, **asked).output[0].content[0].logprobs
    assert len(scored) == 8
    assert all(len(token.top_logprobs) == 2 for token in scored)
    events = client.responses.create(**ASK, **asked, stream=True)
    streamed = [token for event in events if isinstance(event, ResponseTextDeltaEvent) for token in event.logprobs]
    assert [token.logprob for token in streamed] == [token.logprob for token in scored]
    assert client.responses.create(**ASK).output[0].content[0].logprobs == []


def test_metadata_comes_back_and_nothing_is_stored(client):
    raw = client.responses.with_raw_response.create(**ASK, metadata={"run": "7"}, store=True, user="me")
    answer = raw.parse()
    assert answer.metadata == {"run": "7"}
    assert answer.store is False
    assert raw.headers["x-steering-ignored"] == "store"


def test_the_text_can_follow_a_schema(client):
    class Digit(BaseModel):
        digit: Literal[3, 4]

    asked = ASK | {"max_output_tokens": 200}
    for model in (NAME, f"{NAME}+heads"):
        answer = client.responses.parse(**asked | {"model": model}, text_format=Digit)
        assert answer.output_parsed.digit in (3, 4)
        assert answer.text.format.type == "json_schema"
    with_object = client.responses.create(**asked, text={"format": {"type": "json_object"}})
    assert with_object.output_text.startswith("{")
    streamed = client.responses.create(**asked, text=answer.text.model_dump(by_alias=True), stream=True)
    text = "".join(event.delta for event in streamed if event.type == "response.output_text.delta")
    assert Digit.model_validate_json(text)


REFUSED = {
    "a tool": ({"tools": [{"type": "web_search"}]}, "tools.0.type"),
    "a required tool": ({"tool_choice": "required"}, "tool_choice"),
    "an earlier response": ({"previous_response_id": "resp_1"}, "previous_response_id"),
    "a conversation": ({"conversation": "conv_1"}, "conversation"),
    "work in the background": ({"background": True}, "background"),
    "reasoning": ({"reasoning": {"effort": "high"}}, "reasoning.effort"),
    "a schema that is none": (
        {"text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": "wrong"}}}},
        "text.format.schema",
    ),
    "another form": ({"text": {"format": {"type": "xml"}}}, "text.format"),
    "brevity": ({"text": {"verbosity": "low"}}, "text.verbosity"),
    "a stored prompt": ({"prompt": {"id": "pmpt_1"}}, "prompt"),
    "truncation": ({"truncation": "auto"}, "truncation"),
    "an image": ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input.0.content.0.type"),
    "an item of a stored conversation": ({"input": [{"type": "item_reference", "id": "x"}]}, "input.0.type"),
    "another role": ({"input": [{"role": "tool", "content": "x"}]}, "input.0.role"),
    "no input": ({"input": None}, "input"),
    "an empty conversation": ({"input": []}, "input"),
    "a long input": ({"input": "x" * 600}, "input"),
    "a long answer": ({"max_output_tokens": 510}, "max_output_tokens"),
    "no answer": ({"max_output_tokens": 0}, "max_output_tokens"),
    "a misspelt field": ({"max_tokens": 5}, "max_tokens"),
}


@pytest.mark.parametrize(("fields", "param"), REFUSED.values(), ids=REFUSED)
def test_what_it_lacks_is_refused_by_name(http, fields, param):
    answer = http.post("/v1/responses", json=ASK | fields)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param


def test_what_clients_send_by_default_is_accepted(http):
    sent = {
        "tools": [], "tool_choice": "auto", "parallel_tool_calls": True, "include": ["reasoning.encrypted_content"],
        "text": {"format": {"type": "text"}, "verbosity": "medium"}, "reasoning": {"effort": None, "summary": None},
        "truncation": "disabled", "background": False, "store": False, "previous_response_id": None, "metadata": {},
        "service_tier": "auto", "stream_options": {"include_obfuscation": False},
    }  # fmt: skip
    answer = http.post("/v1/responses", json=ASK | sent)
    assert answer.status_code == 200, answer.text
    assert "x-steering-ignored" not in answer.headers


def test_an_error_after_the_stream_has_begun_is_a_failed_response(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    loaded = build_model("llama", dtype=torch.float32)
    with serving(loaded, tmp_path, [build_profile(loaded, "heads", heads=[(0, 1, 2.0)])]) as url:
        from steering_server.engines.local.runner import Runner

        run, steps = Runner.run, iter(range(100))

        def failing(self, inputs):
            if next(steps) == 3:
                raise RuntimeError("out of luck")
            return run(self, inputs)

        monkeypatch.setattr(Runner, "run", failing)
        with openai.OpenAI(base_url=f"{url}/v1", api_key="none") as client:
            events = list(client.responses.create(**ASK, stream=True))
        assert httpx.post(f"{url}/v1/responses", json=ASK).status_code == 200
    assert events[-1].type == "response.failed"
    assert "out of luck" in events[-1].response.error.message
    assert any(event.type == "response.output_text.delta" for event in events)
