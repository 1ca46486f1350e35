"""``POST /v1/completions``, in OpenAI's format, and steered."""

import json

import httpx
import pytest
import torch

from steering_profiles.models import LoadedModel
from steering_profiles.steering import UNSTEERED, Steering, attach
from tests.builders import build_model, greedy, profiles_for, steer

NAME = "tiny-llama"
GREEDY = {"prompt": "print(str(1", "max_tokens": 8, "temperature": 0}


def complete(http: httpx.Client, **body) -> dict:
    response = http.post("/v1/completions", json=GREEDY | body)
    assert response.status_code == 200, response.text
    return response.json()


def texts(answer: dict) -> list[str]:
    return [choice["text"] for choice in answer["choices"]]


def events(http: httpx.Client, **body) -> list[dict]:
    with http.stream("POST", "/v1/completions", json=GREEDY | body | {"stream": True}) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        data = [line.removeprefix("data: ") for line in response.iter_lines() if line.startswith("data: ")]
    assert data[-1] == "[DONE]"
    return [json.loads(event) for event in data[:-1]]


def test_the_lines_of_a_stream_end_as_openais_do(http):
    with http.stream("POST", "/v1/completions", json=GREEDY | {"stream": True}) as response:
        body = response.read()
    assert b"\r" not in body
    assert all(part.startswith(b"data: ") for part in body.removesuffix(b"\n\n").split(b"\n\n"))


def test_an_unsteered_answer_has_openais_format_and_reports_no_profile(http):
    answer = complete(http)
    assert answer["object"] == "text_completion"
    assert answer["model"] == NAME
    assert answer["usage"] == {"prompt_tokens": 11, "completion_tokens": 8, "total_tokens": 19}
    (choice,) = answer["choices"]
    assert set(choice) == {"index", "text", "logprobs", "finish_reason"}
    assert (choice["index"], choice["finish_reason"]) == (0, "length")
    assert answer["steering"] == {
        "arm": "baseline", "profile": None, "content_hash": None, "strength": 0.0, "profiles": [], "warnings": [],
        "effective": {"heads": 0, "neurons": 0, "own_attention": 0.0, "intercept_scale": 0.0, "gate": None},
    }  # fmt: skip
    assert "comparison" not in answer


def test_model_name_steering_object_and_arm_are_three_ways_to_say_the_same(http):
    baseline = texts(complete(http))
    by_name = complete(http, model=f"{NAME}+heads")
    by_object = complete(http, steering={"profile": "heads"})
    by_arm = complete(http, arms=["heads"])
    assert texts(by_name) == texts(by_object) == texts(by_arm) != baseline
    assert by_name["steering"] == by_object["steering"] == by_arm["steering"]["arms"][0]


def test_strength_zero_is_the_baseline(http):
    assert texts(complete(http, steering={"profile": "heads", "strength": 0})) == texts(complete(http))


def test_profiles_compose_by_name_and_by_list(http):
    both = complete(http, model=f"{NAME}+heads+final")
    assert texts(both) == texts(complete(http, steering={"profile": ["heads", "final"]}))
    assert texts(both) not in (texts(complete(http, arms=["heads"])), texts(complete(http, arms=["final"])))
    assert both["steering"]["profile"] == "heads+final"
    assert [one["profile"] for one in both["steering"]["profiles"]] == ["heads", "final"]


def test_arms_come_back_in_order_each_with_its_name_and_equal_to_their_own_requests(http):
    arms = ["final", "baseline", "heads+final", {"profile": "heads", "strength": 0.5}]
    answer = complete(http, arms=arms)
    assert [choice["arm"] for choice in answer["choices"]] == ["final", "baseline", "heads+final", "heads@0.5"]
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
    alone = [
        complete(http, model=f"{NAME}+final"),
        complete(http),
        complete(http, model=f"{NAME}+heads+final"),
        complete(http, steering={"profile": "heads", "strength": 0.5}),
    ]
    assert texts(answer) == [texts(one)[0] for one in alone]
    assert len(set(texts(answer))) > 2


def test_the_steering_header_says_what_each_arm_applied(http):
    response = http.post("/v1/completions", json=GREEDY | {"arms": ["baseline", "heads"]})
    hash_ = http.get("/v1/profiles/heads").json()["content_hash"].removeprefix("sha256:")[:12]
    assert response.headers["x-steering"] == f"baseline, heads;profile=heads;hash={hash_};strength=1"


def test_a_comparison_has_the_first_difference_and_the_scores_under_both_arms(http):
    """Against the stock model: each arm decoded greedily and scored by a full forward, one after the other."""
    stock = build_model("llama", dtype=torch.float32)
    steerings = {"baseline": UNSTEERED, "heads": steer(profiles_for(stock)[0])}
    prompt = stock.tokenizer.encode(GREEDY["prompt"])
    tokens = {arm: greedy(stock, prompt, steering, tokens=8) for arm, steering in steerings.items()}
    answer = complete(http, arms=list(steerings), logprobs=0)
    (pair,) = answer["comparison"]["pairs"]
    assert (pair["arms"], pair["choices"]) == (["baseline", "heads"], [0, 1])
    parted = next(i for i, (a, b) in enumerate(zip(*tokens.values(), strict=True)) if a != b)
    assert pair["first_difference"] == parted
    for whose in steerings:
        for under, steering in steerings.items():
            expected = scores(stock, prompt, tokens[whose], steering)
            assert pair["logprobs"][whose][under] == pytest.approx(expected, abs=1e-4)


@torch.no_grad()
def scores(stock: LoadedModel, prompt: list[int], completion: list[int], steering: Steering) -> list[float]:
    handle = attach(stock)
    with handle.applied([steering]):
        logprobs = stock.model(torch.tensor([prompt + completion])).logits[0].log_softmax(-1)
    handle.remove()
    return [logprobs[len(prompt) - 1 + i, token].item() for i, token in enumerate(completion)]


def test_arms_that_agree_have_no_first_difference(http):
    answer = complete(http, arms=["baseline", {"profile": "heads", "strength": 0, "name": "off"}])
    assert answer["comparison"]["pairs"][0]["first_difference"] is None


def test_arms_with_n_are_arm_major_and_share_their_random_numbers(http):
    same = {"profile": "heads", "strength": 0}
    body = {"temperature": 1, "seed": 5, "n": 2, "arms": ["baseline", {**same, "name": "off"}]}
    answer = complete(http, **body)
    assert [choice["arm"] for choice in answer["choices"]] == ["baseline", "baseline", "off", "off"]
    first, second, off_first, off_second = texts(answer)
    assert (first, second) == (off_first, off_second)
    assert first != second
    assert [pair["choices"] for pair in answer["comparison"]["pairs"]] == [[0, 2], [1, 3]]


@pytest.mark.parametrize("arms", [None, ["baseline", "heads", "final"]])
@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.0, "seed": 3}], ids=["greedy", "seeded"])
def test_a_streamed_answer_is_the_unstreamed_one(http, arms, sampling):
    body = sampling | {"max_tokens": 24, "stop": ["$"], "logprobs": 1} | ({"arms": arms} if arms else {})
    whole = complete(http, **body)
    chunks = [choice for event in events(http, **body) for choice in event["choices"]]
    for choice in whole["choices"]:
        mine = [chunk for chunk in chunks if chunk["index"] == choice["index"]]
        assert "".join(chunk["text"] for chunk in mine) == choice["text"]
        assert {chunk.get("arm") for chunk in mine} == {choice.get("arm")}
        assert [chunk["finish_reason"] for chunk in mine][-1] == choice["finish_reason"]
        for field in ("tokens", "token_logprobs", "text_offset"):
            streamed = [value for chunk in mine for value in chunk["logprobs"][field]]
            assert (
                streamed == pytest.approx(choice["logprobs"][field], abs=1e-4)
                if field == "token_logprobs"
                else (streamed == choice["logprobs"][field])
            )


def test_a_stream_of_arms_ends_with_their_comparison_and_every_chunk_says_what_was_applied(http):
    chunks = events(http, arms=["baseline", "heads"])
    assert all(len(chunk["steering"]["arms"]) == 2 for chunk in chunks)
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["comparison"] == complete(http, arms=["baseline", "heads"])["comparison"]


def test_a_stream_reports_usage_in_a_last_chunk_only_if_requested(http):
    *chunks, last = events(http, stream_options={"include_usage": True})
    assert last["usage"] == {"prompt_tokens": 11, "completion_tokens": 8, "total_tokens": 19}
    assert last["choices"] == []
    assert {chunk["usage"] for chunk in chunks} == {chunk["usage"] for chunk in events(http)} == {None}


@pytest.mark.parametrize("prompt", [[80, 82, 73], [[80, 82, 73], [9]], ["pri", "x"]])
def test_prompts_may_be_lists_of_strings_or_token_ids(http, prompt):
    answer = complete(http, prompt=prompt)
    several = prompt if not isinstance(prompt[0], int) else [prompt]
    assert texts(answer) == [texts(complete(http, prompt=one))[0] for one in several]


def test_a_string_and_its_token_ids_are_the_same_prompt(http, model: LoadedModel):
    ids = model.tokenizer.encode(GREEDY["prompt"])
    assert texts(complete(http, prompt=ids)) == texts(complete(http))


def test_n_answers_differ_and_a_seed_repeats_them(http):
    body = {"n": 3, "temperature": 1.2, "seed": 11}
    one, two = texts(complete(http, **body)), texts(complete(http, **body))
    assert one == two
    assert len(set(one)) == 3
    assert texts(complete(http, **body | {"seed": 12})) != one


def test_text_ends_before_a_stop_string(http):
    text = texts(complete(http, max_tokens=30))[0]
    stop = text[4:6]
    answer = complete(http, max_tokens=30, stop=[stop])
    assert texts(answer) == [text[: text.index(stop)]]
    assert answer["choices"][0]["finish_reason"] == "stop"


def test_the_last_of_64_stop_strings_ends_the_text_too(http):
    text = texts(complete(http, max_tokens=30))[0]
    stops = [f"nowhere {i}" for i in range(63)] + [text[4:6]]
    assert texts(complete(http, max_tokens=30, stop=stops)) == [text[: text.index(text[4:6])]]


def test_logprobs_have_openais_columns_and_offsets_into_the_text(http):
    answer = complete(http, logprobs=3)
    (choice,) = answer["choices"]
    columns = choice["logprobs"]
    assert {len(column) for column in columns.values()} == {8}
    for token, logprob, top in zip(columns["tokens"], columns["token_logprobs"], columns["top_logprobs"], strict=True):
        assert max(top.values()) == top[token] == logprob
    for token, offset in zip(columns["tokens"], columns["text_offset"], strict=True):
        read = choice["text"][offset : offset + len(token) + 1]
        assert read.startswith(token) or "\ufffd" in read  # an incomplete character has no offset


def test_an_echo_repeats_the_prompt_and_scores_it(http):
    answer = complete(http, echo=True, logprobs=0, max_tokens=2)
    (choice,) = answer["choices"]
    assert choice["text"] == GREEDY["prompt"] + texts(complete(http, max_tokens=2))[0]
    columns = choice["logprobs"]
    assert columns["tokens"][:11] == list(GREEDY["prompt"])
    assert columns["token_logprobs"][0] is None
    assert all(value < 0 for value in columns["token_logprobs"][1:])
    assert columns["text_offset"][:12] == list(range(12))


def test_an_echo_without_new_tokens_scores_the_prompt_alone(http):
    (choice,) = complete(http, echo=True, logprobs=1, max_tokens=0)["choices"]
    assert choice["text"] == GREEDY["prompt"]
    assert len(choice["logprobs"]["tokens"]) == 11


def test_openai_fields_at_their_neutral_value_and_nulls_change_nothing(http):
    neutral = {"frequency_penalty": 0, "presence_penalty": 0.0, "logit_bias": {}, "best_of": 1, "suffix": ""}
    assert texts(complete(http, **neutral, stop=None, seed=None, user="someone")) == texts(complete(http))


def test_a_bias_can_force_or_forbid_a_token(http, model: LoadedModel):
    (star,) = model.tokenizer.encode("*")
    assert texts(complete(http, logit_bias={str(star): 100})) == ["*" * 8]
    first = complete(http, logprobs=0, max_tokens=1)["choices"][0]["text"]
    (token,) = model.tokenizer.encode(first)
    assert not texts(complete(http, logit_bias={str(token): -100}, max_tokens=1))[0].startswith(first)


def test_one_likeliest_token_is_the_greedy_choice_at_any_temperature(http):
    assert texts(complete(http, temperature=2, top_k=1)) == texts(complete(http))
    assert texts(complete(http, temperature=2, min_p=1)) == texts(complete(http))
    assert texts(complete(http, temperature=1.5, top_k=-1, seed=1)) == texts(complete(http, temperature=1.5, seed=1))


@pytest.mark.parametrize("limit", [{"temperature": 5e-324}, {"temperature": 1, "top_p": 1e-300}], ids=str)
def test_a_limit_too_small_for_the_models_numbers_is_the_greedy_choice(http, limit):
    assert texts(complete(http, **limit)) == texts(complete(http))
