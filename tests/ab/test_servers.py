"""Arms of a real server, of a server that is no steering server, and a judge behind HTTP."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from steering_ab import Result, ab
from steering_ab.asking.judging import judge_of
from steering_ab.comparing import ab_async
from steering_ab.errors import AskingError
from tests.ab.foreign import Foreign, serving_foreign
from tests.api.keyed import keyed
from tests.builders import build_model, build_profile
from tests.serving import free_port, serving

PROMPTS = [f"print(str({n}" for n in range(12)]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of a small model with a profile that changes it much."""
    loaded = build_model("llama", dtype=torch.float32)
    profile = build_profile(loaded, "strong", heads=[(0, 1, 4.0), (1, 2, -2.0), (2, 0, 3.0)])
    with serving(loaded, tmp_path_factory.mktemp("profiles"), [profile]) as address:
        yield address


def texts(result: Result, arm: str, repeat: int = 0) -> list[str]:
    answers = (result.answer(item, repeat, arm) for item in result.dataset.items)
    return [answer.text for answer in answers if answer is not None]


def test_arms_of_the_server_answer_as_they_do_alone(url: str):
    options: dict[str, Any] = {"url": url, "graders": ["length"], "max_tokens": 6}
    both = ab(PROMPTS, ["baseline", "strong"], **options)
    alone = ab(PROMPTS, ["strong", "baseline"], concurrency=1, **options)
    assert texts(both, "baseline") == texts(alone, "baseline")
    assert texts(both, "strong") == texts(alone, "strong")
    assert texts(both, "strong") != texts(both, "baseline")
    assert both.settings.described["strong"]["profiles"]["strong"].startswith("sha256:")
    assert both.settings.model


def test_lengths_tokens_and_times_are_those_of_each_arm(url: str):
    result = ab(PROMPTS, ["baseline", "strong"], url=url, graders=["length:tokens"], max_tokens=6)
    for effort in result.efforts:
        assert effort.tokens == 6
        assert effort.cut == 1
        assert effort.prompt_tokens is not None
        assert effort.prompt_tokens > 5
        assert effort.first_token_seconds is not None
        assert effort.median_seconds is not None
        assert 0 < effort.first_token_seconds <= effort.median_seconds


def test_an_arm_compared_with_itself_gives_the_same_texts(url: str):
    result = ab(PROMPTS, ["baseline", "baseline", "strong@0"], url=url, graders=["length"], temperature=1.0, repeats=3)
    assert result.arms == ("baseline", "baseline.2", "strong@0")
    for repeat in range(3):
        assert (
            texts(result, "baseline", repeat)
            == texts(result, "baseline.2", repeat)
            == texts(result, "strong@0", repeat)
        )
    assert texts(result, "baseline", 0) != texts(result, "baseline", 1)
    assert [each.difference for each in result.comparisons] == [0, 0, 0]


def test_messages_and_the_messages_of_prompts_are_chats(url: str):
    messages = [{"messages": [{"role": "user", "content": prompt}]} for prompt in PROMPTS]
    options: dict[str, Any] = {"url": url, "graders": ["length"], "max_tokens": 5}
    chats = ab(messages, ["baseline", "strong"], **options)
    assert texts(chats, "strong") == texts(ab(PROMPTS, ["baseline", "strong"], chat=True, **options), "strong")
    assert texts(chats, "strong") != texts(ab(PROMPTS, ["baseline", "strong"], **options), "strong")


def test_choices_are_scored_under_every_arm(url: str):
    choices = [{"prompt": prompt, "choices": [")", "))", " a b c"], "expected": "))"} for prompt in PROMPTS]
    result = ab(choices, ["baseline", "strong"], url=url)
    scores = [
        [answer.choice_logprobs for item in result.dataset.items if (answer := result.answer(item, 0, arm)) is not None]
        for arm in result.arms
    ]
    assert scores[0] != scores[1]
    assert all(len(each) == 3 and all(value < 0 for value in each) for arm in scores for each in arm)
    assert result.comparisons[0].grader == "choice"
    assert texts(result, "baseline")[0] in (")", "))", " a b c")


def test_what_the_server_refuses_is_named_and_the_rest_goes_on(url: str):
    result = ab([*PROMPTS, "x" * 5000], ["baseline", "strong"], url=url, graders=["length"])
    assert [fault.line for fault in result.refused] == [13]
    assert "prompt" in result.refused[0].reason
    assert result.comparisons[0].items == 12


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        (["baseline", "strongest"], r"there is no profile 'strongest'; there are: baseline, strong"),
        (["baseline", "strong@much"], r"arm 'strong@much': the strength after @"),
        (["baseline", "strong+strong"], r"named twice"),
    ],
)
def test_an_arm_that_the_server_does_not_have_is_refused(url: str, arms: list[str], message: str):
    with pytest.raises(AskingError, match=message):
        ab(PROMPTS, arms, url=url, graders=["length"])


def test_a_server_that_is_not_there_is_refused():
    with pytest.raises(AskingError, match="cannot reach"):
        ab(PROMPTS, ["baseline", "strong"], url=f"http://127.0.0.1:{free_port()}", graders=["length"])
    with pytest.raises(AskingError, match="base URL"):
        ab(PROMPTS, ["baseline", "strong"], url="nowhere", graders=["length"])


def test_models_of_another_server_are_asked_one_by_one_with_the_same_seed():
    foreign = Foreign({"plain": lambda prompt: "no", "better": lambda prompt: "yes"})
    items = [{"prompt": "a", "expected": "yes"}, {"messages": [{"role": "user", "content": "b"}], "expected": "yes"}]
    with serving_foreign(foreign) as address:
        result = ab(items, ["plain", "better"], url=f"{address}/v1", temperature=0.5, repeats=2)
        with pytest.raises(AskingError, match=r"no steering server, .* it has no 'best', but plain, better"):
            ab(items, ["plain", "best"], url=address)
    assert result.comparisons[0].difference == 1
    assert len(foreign.asked) == 8
    assert len({body["seed"] for body in foreign.asked}) == 4
    assert {body["model"] for body in foreign.asked} == {"plain", "better"}


def test_choices_of_another_server_are_scored_by_echo():
    foreign = Foreign({"a": lambda prompt: "xy", "b": lambda prompt: "zw"})
    items = [{"prompt": "p", "choices": ["xx", "zz"], "expected": "zz"}, {"prompt": "q", "expected": "zw"}]
    with serving_foreign(foreign) as address:
        result = ab(items, ["a", "b"], url=address)
    assert result.comparisons[0].wins == 2


def test_a_request_that_another_server_fails_on_is_named():
    foreign = Foreign({"a": lambda prompt: "1", "b": lambda prompt: "2"})
    with serving_foreign(foreign) as address:
        foreign.failing = 1
        result = ab(["p", "q"], ["a", "b"], url=address, graders=["length"], concurrency=1)
    assert len(result.unanswered) == 1
    assert "broken" in result.unanswered[0].reason
    assert result.comparisons[0].items == 1


def test_a_judge_is_asked_over_http_in_both_orders(url: str):
    foreign = Foreign({"judge": lambda text: "[[A]]", "mute": lambda text: "I cannot say."})
    with serving_foreign(foreign) as address:

        async def judged(model: str) -> Result:
            judge, client = judge_of(address, model, None, 4)
            async with client:
                arms = ("baseline", "strong")
                return await ab_async(PROMPTS[:4], arms, url=url, graders=["judge", "length"], judge=judge)

        result = asyncio.run(judged("judge"))
        mute = asyncio.run(judged("mute"))
    assert result.comparisons[0].disagreements == result.comparisons[0].ties == 4
    assert len(foreign.asked) >= 8
    assert "no verdict [[A]], [[B]] or [[C]]: 'I cannot say.'" in str(mute.failures[0])
    assert [each.grader for each in mute.comparisons] == ["length"]


def test_a_server_with_keys_asks_for_one(tmp_path: Path):
    with keyed(tmp_path) as server:
        key = server.add("ci")["authorization"].removeprefix("Bearer ")
        with pytest.raises(AskingError, match="does not accept the API key"):
            ab(PROMPTS, ["baseline", "heads"], url=server.url, graders=["length"])
        result = ab(PROMPTS, ["baseline", "heads"], url=server.url, api_key=key, graders=["length"])
    assert result.comparisons[0].items == 12
    assert key not in result.to_html()
