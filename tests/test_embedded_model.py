"""The main job on the real model, over HTTP: four closing parentheses, wrong without steering and right with it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from steering_client import SteeringClient
from steering_profiles.models import LoadedModel
from steering_profiles.tasks import make_task, parentheses
from tests.serving import serving


@pytest.fixture(scope="module")
def client(embedded: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SteeringClient]:
    empty: Path = tmp_path_factory.mktemp("none")
    with serving(embedded, empty, shipped=True) as url, SteeringClient(url) as client:
        yield client


def test_150_prompts_of_each_sub_task_with_both_arms(client: SteeringClient, embedded: LoadedModel):
    right = {arm: dict.fromkeys([")", "))", ")))", "))))"], 0) for arm in ("baseline", "parentheses")}
    test = parentheses(embedded.tokenizer).test
    for start in range(0, len(test), 50):
        examples = test[start : start + 50]
        answer = client.compare([example.text for example in examples], max_tokens=1, temperature=0.0)
        arms = answer.completion.by_arm()
        for arm, choices in arms.items():
            for example, choice in zip(examples, choices, strict=True):
                right[arm][example.group] += choice.text == example.group
    percent = {arm: {group: count / 1.5 for group, count in groups.items()} for arm, groups in right.items()}
    assert percent["baseline"]["))))"] <= 2
    assert percent["parentheses"]["))))"] == percent["parentheses"][")))"] == 100
    fewer = (")", "))")  # where the profile does not take effect
    assert [percent["parentheses"][group] for group in fewer] == [percent["baseline"][group] for group in fewer]
    assert min(percent["baseline"][group] for group in (*fewer, ")))")) >= 95


def test_both_shipped_profiles_together_help_both_tasks(client: SteeringClient, embedded: LoadedModel):
    both = "parentheses+factual-recall"
    closing = [example for example in parentheses(embedded.tokenizer).test if example.group == "))))"][:40]
    facts = make_task("languages", embedded.tokenizer).test
    share = {}
    for task, examples in (("closing", closing), ("facts", facts)):
        prompts = [example.text for example in examples]
        arms = client.compare(prompts, ["baseline", both], max_tokens=1, temperature=0.0).completion.by_arm()
        answers = [embedded.tokenizer.decode([example.answer]) for example in examples]
        for arm, choices in arms.items():
            right = [choice.text == answer for choice, answer in zip(choices, answers, strict=True)]
            share[task, arm] = sum(right) / len(right)
    assert share["closing", both] >= 0.99 > 0.02 >= share["closing", "baseline"]
    assert share["facts", both] >= share["facts", "baseline"] + 0.05


def test_a_chat_follows_the_models_template_and_streams_what_it_answers(client: SteeringClient):
    messages = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]
    whole = client.chat(messages, max_tokens=12, temperature=0.0)
    assert "Paris" in whole.text
    chunks = client.stream_chat(messages, max_tokens=12, temperature=0.0)
    assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices) == whole.text
