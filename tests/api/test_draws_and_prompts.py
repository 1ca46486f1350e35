"""``best_of``, ``prompt_logprobs``, ``logprobs`` of 20 tokens and usage in every chunk."""

import json

import httpx
import pytest

BODY = {"prompt": "print(1", "max_tokens": 6, "temperature": 1.5, "seed": 3}


def post(http: httpx.Client, route: str = "/v1/completions", **fields: object) -> dict:
    answer = http.post(route, json=BODY | fields)
    assert answer.status_code == 200, answer.text
    return answer.json()


def mean(choice: dict) -> float:
    scores = choice["logprobs"]["token_logprobs"]
    return sum(scores) / len(scores)


def test_best_of_returns_the_draws_with_the_highest_mean_log_probability(http):
    drawn = post(http, n=8, logprobs=0)
    best = post(http, n=3, best_of=8, logprobs=0)
    expected = sorted(drawn["choices"], key=mean, reverse=True)[:3]
    assert [choice["text"] for choice in best["choices"]] == [choice["text"] for choice in expected]
    assert [choice["index"] for choice in best["choices"]] == [0, 1, 2]
    assert [mean(choice) for choice in best["choices"]] == [mean(choice) for choice in expected]
    assert len({choice["text"] for choice in drawn["choices"]}) > 3, "the draws do not differ, so nothing was chosen"


def test_best_of_counts_every_token_that_was_generated(http):
    assert post(http, n=1, best_of=5)["usage"]["completion_tokens"] == 30


def test_best_of_shows_log_probabilities_only_if_asked_for(http):
    assert post(http, n=1, best_of=4)["choices"][0]["logprobs"] is None


def test_best_of_chooses_for_every_prompt_and_arm(http):
    answer = post(http, prompt=["a", "b"], arms=["baseline", "heads"], n=2, best_of=4, logprobs=0)
    every = post(http, prompt=["a", "b"], arms=["baseline", "heads"], n=4, logprobs=0)
    assert [choice["arm"] for choice in answer["choices"]] == ["baseline", "baseline", "heads", "heads"] * 2
    for group in range(4):
        drawn = sorted(every["choices"][4 * group : 4 * group + 4], key=mean, reverse=True)[:2]
        kept = answer["choices"][2 * group : 2 * group + 2]
        assert [choice["text"] for choice in kept] == [choice["text"] for choice in drawn]
    assert [pair["choices"] for pair in answer["comparison"]["pairs"]] == [[0, 2], [1, 3], [4, 6], [5, 7]]


def test_best_of_n_is_n(http):
    assert post(http, n=2, best_of=2)["choices"] == post(http, n=2)["choices"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"n": 2, "best_of": 1}, "best_of"), ({"best_of": 0}, "best_of"),
     ({"best_of": 2000}, "best_of"), ({"best_of": 2, "stream": True}, "best_of"),
     ({"prompt_logprobs": 1, "stream": True}, "prompt_logprobs"), ({"prompt_logprobs": 21}, "prompt_logprobs"),
     ({"logprobs": 21}, "logprobs")],
)  # fmt: skip
def test_what_cannot_be_had_is_refused_by_name(http, fields, param):
    answer = http.post("/v1/completions", json=BODY | fields)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


def test_prompt_logprobs_are_those_of_an_echo_by_token_id(http):
    prompt = "print(1"
    echoed = post(http, prompt=prompt, echo=True, logprobs=2, max_tokens=1)["choices"][0]["logprobs"]
    scored = post(http, prompt=prompt, prompt_logprobs=2, max_tokens=1)["choices"][0]["prompt_logprobs"]
    ids = http.post("/v1/completions", json=BODY | {"prompt": prompt}).json()["usage"]["prompt_tokens"]
    assert scored[0] is None
    assert len(scored) == ids == len(prompt)
    for position in range(1, len(prompt)):
        own, *others = scored[position].values()
        assert own["decoded_token"] == prompt[position]
        assert own["logprob"] == echoed["token_logprobs"][position]
        assert 2 <= len(scored[position]) <= 3
        assert [other["rank"] for other in others] == [rank for rank in (1, 2) if rank != own["rank"]]


def test_the_rank_of_a_token_is_its_place_among_all(http, model):
    every = post(http, prompt_logprobs=20, max_tokens=1)["choices"][0]["prompt_logprobs"]
    none = post(http, prompt_logprobs=0, max_tokens=1)["choices"][0]["prompt_logprobs"]
    ranks = set()
    for likeliest, alone in zip(every[1:], none[1:], strict=True):
        ((token, own),) = alone.items()
        assert likeliest[token]["rank"] == own["rank"]
        above = sum(other["logprob"] > own["logprob"] for other in likeliest.values())
        assert own["rank"] == above + 1 or own["rank"] > 20
        ranks.add(own["rank"])
    assert len(ranks) > 1


def test_prompt_logprobs_are_those_of_each_arm(http):
    choices = post(http, arms=["baseline", "heads"], prompt_logprobs=0, max_tokens=1)["choices"]
    assert choices[0]["prompt_logprobs"] != choices[1]["prompt_logprobs"]


def test_a_chat_has_them_for_the_whole_answer_or_for_each_arm(http):
    chat = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1, "prompt_logprobs": 1}
    whole = http.post("/v1/chat/completions", json=chat).json()
    assert len(whole["prompt_logprobs"]) == whole["usage"]["prompt_tokens"]
    assert "prompt_logprobs" not in whole["choices"][0]
    arms = http.post("/v1/chat/completions", json=chat | {"arms": ["baseline"]}).json()
    assert arms["choices"][0]["prompt_logprobs"] == whole["prompt_logprobs"]
    assert "prompt_logprobs" not in arms


def test_completions_list_up_to_twenty_likeliest_tokens(http):
    top = post(http, logprobs=20, max_tokens=1)["choices"][0]["logprobs"]["top_logprobs"][0]
    assert len(top) in (20, 21)


def test_usage_comes_in_every_chunk_if_asked_for(http):
    options = {"include_usage": True, "continuous_usage_stats": True}
    for route, extra in (
        ("/v1/completions", {}),
        ("/v1/chat/completions", {"prompt": None, "messages": [{"role": "user", "content": "hi"}]}),
    ):
        body = {k: v for k, v in (BODY | extra | {"stream": True, "stream_options": options}).items() if v is not None}
        lines = http.post(route, json=body).text.split("\n\n")
        chunks = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
        counts = [chunk["usage"]["completion_tokens"] for chunk in chunks]
        assert counts == sorted(counts)
        assert counts[-1] == counts[-2] == 6
        assert len(set(counts)) > 3
        assert all(chunk["usage"]["total_tokens"] > chunk["usage"]["completion_tokens"] for chunk in chunks)
