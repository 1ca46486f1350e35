"""The official ``openai`` package works against the server unchanged."""

import asyncio
from collections.abc import Iterator

import openai
import pytest

NAME = "tiny-llama"
GREEDY = {"prompt": "print(str(1", "max_tokens": 8, "temperature": 0}
CHAT = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 8, "temperature": 0}


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_models_are_the_baseline_and_one_per_profile(client):
    assert [model.id for model in client.models.list()] == [NAME, f"{NAME}+final", f"{NAME}+heads"]
    assert client.models.retrieve(f"{NAME}+heads").id == f"{NAME}+heads"


def test_changing_the_model_name_is_an_a_b_test(client):
    plain = client.completions.create(model=NAME, **GREEDY)
    steered = client.completions.create(model=f"{NAME}+heads", **GREEDY)
    assert plain.choices[0].text != steered.choices[0].text
    assert (plain.model, steered.model) == (NAME, f"{NAME}+heads")
    assert steered.steering["profile"] == "heads"


def test_arms_go_through_extra_body(client):
    answer = client.completions.create(model=NAME, extra_body={"arms": ["baseline", "heads"]}, **GREEDY)
    assert [choice.arm for choice in answer.choices] == ["baseline", "heads"]
    assert answer.comparison["pairs"][0]["arms"] == ["baseline", "heads"]


def test_a_streamed_completion_is_the_unstreamed_one(client):
    whole = client.completions.create(model=f"{NAME}+heads", **GREEDY)
    chunks = list(client.completions.create(model=f"{NAME}+heads", stream=True, **GREEDY))
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text


def test_chat_answers_by_the_models_template(client):
    answer = client.chat.completions.create(model=NAME, **CHAT)
    assert answer.choices[0].message.role == "assistant"
    rendered = "<|user|>hello\n<|assistant|>"
    completion = client.completions.create(model=NAME, prompt=rendered, max_tokens=8, temperature=0)
    assert answer.choices[0].message.content == completion.choices[0].text
    assert answer.usage.prompt_tokens == len(rendered)


def test_an_answer_can_be_sent_back_as_it_was_received(client):
    message = client.chat.completions.create(model=NAME, **CHAT).choices[0].message
    conversation = [*CHAT["messages"], message.model_dump(), {"role": "user", "content": "and?"}]
    answer = client.chat.completions.create(model=NAME, **CHAT | {"messages": conversation})
    assert answer.usage.prompt_tokens > len("hello") + len(message.content)


def test_unsupported_chat_fields_are_accepted_at_their_neutral_values(client):
    neutral = {"tool_choice": "none", "parallel_tool_calls": True, "service_tier": "auto", "modalities": ["text"]}
    plain = client.chat.completions.create(model=NAME, **CHAT)
    assert client.chat.completions.create(model=NAME, **CHAT, **neutral).choices == plain.choices


def test_a_streamed_chat_is_the_unstreamed_one_arm_by_arm(client):
    extra = {"arms": ["heads", "baseline"]}
    whole = client.chat.completions.create(model=NAME, extra_body=extra, **CHAT)
    texts, roles = {}, {}
    for chunk in client.chat.completions.create(model=NAME, stream=True, extra_body=extra, **CHAT):
        for choice in chunk.choices:
            texts[choice.arm] = texts.get(choice.arm, "") + (choice.delta.content or "")
            roles.setdefault(choice.arm, choice.delta.role)
    assert texts == {choice.arm: choice.message.content for choice in whole.choices}
    assert roles == {"heads": "assistant", "baseline": "assistant"}


def test_chat_logprobs_come_with_alternatives(client):
    answer = client.chat.completions.create(model=NAME, logprobs=True, top_logprobs=3, **CHAT)
    scored = answer.choices[0].logprobs.content
    assert len(scored) == answer.usage.completion_tokens == 8
    assert all(one.top_logprobs[0].logprob == one.logprob and len(one.top_logprobs) == 3 for one in scored)


def test_chat_without_max_tokens_may_fill_the_context(client):
    answer = client.chat.completions.create(model=NAME, messages=[{"role": "user", "content": "x" * 470}])
    assert answer.usage.total_tokens <= 512
    assert answer.choices[0].finish_reason in ("length", "stop")


def test_usage_comes_at_the_end_of_a_stream_that_asked_for_it(client):
    chunks = list(
        client.chat.completions.create(model=NAME, stream=True, stream_options={"include_usage": True}, **CHAT)
    )
    assert chunks[-1].usage.completion_tokens == 8


@pytest.mark.parametrize(
    ("change", "error", "param"),
    [
        ({"model": "other"}, openai.NotFoundError, "model"),
        ({"max_tokens": -1}, openai.BadRequestError, "max_tokens"),
        ({"extra_body": {"steering": {"profile": "nope"}}}, openai.NotFoundError, "steering.profile"),
        ({"extra_body": {"stears": 1}}, openai.BadRequestError, "stears"),
    ],
)
def test_errors_are_raised_as_the_packages_own_exceptions(client, change, error, param):
    with pytest.raises(error) as caught:
        client.completions.create(**{"model": NAME, **GREEDY, **change})
    assert caught.value.param == param


def test_the_async_client_gives_the_same_answers(client, url):
    async def run() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as other:
            requests = [other.completions.create(model=name, **GREEDY) for name in (NAME, f"{NAME}+heads")]
            return [answer.choices[0].text for answer in await asyncio.gather(*requests)]

    expected = [client.completions.create(model=name, **GREEDY).choices[0].text for name in (NAME, f"{NAME}+heads")]
    assert asyncio.run(run()) == expected
