"""Profiles with conditions over HTTP: put, listed, applied token by token, and refused where they cannot be."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import torch

from steering_profiles.models import LoadedModel
from tests.api.profile_bodies import JSON, as_json, put
from tests.builders import build_model, build_profile
from tests.conditional import CONDITIONS, greedy_where
from tests.serving import serving

SCALES = [(0, 1, 4.0), (1, 2, -2.0)]
PROMPT = "print(str(ab 12"


@pytest.fixture(scope="module")
def served() -> LoadedModel:
    return build_model("llama", dtype=torch.float32)


@pytest.fixture(scope="module")
def http(served: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder: Path = tmp_path_factory.mktemp("profiles")
    always = build_profile(served, "always", heads=SCALES)
    with serving(served, folder, [always], watched=True) as url, httpx.Client(base_url=url, timeout=60) as client:
        for name, where in CONDITIONS.items():
            profile = build_profile(served, name.replace(" ", "-"), heads=SCALES, when=where.when)
            assert put(client, profile).status_code == 201
        yield client


def test_arms_are_steered_where_their_conditions_hold(http: httpx.Client):
    other = build_model("llama", dtype=torch.float32)
    prompt = other.tokenizer.encode(PROMPT)
    names = [name.replace(" ", "-") for name in CONDITIONS]
    answer = http.post(
        "/v1/completions",
        json={
            "prompt": PROMPT, "max_tokens": 4, "temperature": 0, "arms": ["baseline", *names],
            "return_token_ids": True, "ignore_eos": True,
        },
    ).json()  # fmt: skip
    for where, choice in zip([None, *CONDITIONS.values()], answer["choices"], strict=True):
        scaled = () if where is None else ((SCALES, where),)
        assert choice["token_ids"] == greedy_where(other, prompt, *scaled, tokens=4, guess=choice["token_ids"])


def test_an_answer_and_the_list_say_the_condition(http: httpx.Client):
    applied = http.post(
        "/v1/completions", json={"prompt": PROMPT, "max_tokens": 1, "steering": {"profile": "from+always"}}
    )
    assert applied.json()["steering"]["effective"]["when"] == ["the position is 7 or later"]
    always = http.post("/v1/completions", json={"prompt": PROMPT, "max_tokens": 1, "steering": {"profile": "always"}})
    assert "when" not in always.json()["steering"]["effective"]
    listed = {profile["name"]: profile for profile in http.get("/v1/profiles").json()["data"]}
    assert listed["from"]["when"] == "the position is 7 or later"
    assert listed["from"]["summary"] == "2 heads x -2..4; where the position is 7 or later"
    assert "when" not in listed["always"]
    assert http.get("/v1/profiles/matches").json()["profile"]["when"] == CONDITIONS["matches"].when


def test_scales_with_conditions_of_their_own_are_put_listed_and_applied(http: httpx.Client, served: LoadedModel):
    matches, late = CONDITIONS["matches"], CONDITIONS["from"]
    other = [(1, 0, 3.0)]
    heads = [(*scale, matches.when) for scale in SCALES] + [(*scale, late.when) for scale in other]
    several = build_profile(served, "several", heads=heads)
    assert put(http, several).status_code == 201
    model = build_model("llama", dtype=torch.float32)
    answer = http.post(
        "/v1/completions",
        json={
            "prompt": PROMPT, "max_tokens": 4, "temperature": 0, "return_token_ids": True, "ignore_eos": True,
            "arms": ["baseline", "several", {"profile": "several", "except": ["L1H0"]}],
        },
    ).json()  # fmt: skip
    prompt = model.tokenizer.encode(PROMPT)
    expected = [(), ((SCALES, matches), (other, late)), ((SCALES, matches),)]
    for scaled, choice in zip(expected, answer["choices"], strict=True):
        assert choice["token_ids"] == greedy_where(model, prompt, *scaled, tokens=4, guess=choice["token_ids"])
    whole, reduced = answer["steering"]["arms"][1:]
    assert whole["effective"]["when"] == [str(condition) for condition in several.conditions]
    assert reduced["effective"]["when"] == [str(several.conditions[0])]
    listed = http.get("/v1/profiles/several").json()
    assert listed["when"] == "; ".join(map(str, several.conditions))
    assert listed["profile"]["heads"] == [
        {"layer": layer, "head": head, "scale": scale, "when": when} for layer, head, scale, when in heads
    ]
    assert http.delete("/v1/profiles/several").status_code == 200


def test_a_scales_faulty_condition_is_refused_by_its_field(http: httpx.Client, served: LoadedModel):
    heads = [{"layer": 0, "head": 1, "scale": 2.0, "when": {"matches": "("}}]
    body = as_json(build_profile(served, "mine", heads=SCALES), heads=heads)
    refused = http.put("/v1/profiles/mine", content=body, headers=JSON)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "heads.0.when.matches")


@pytest.mark.parametrize(
    ("when", "field"),
    [
        ({"matches": "("}, "when.matches"),
        ({"all": [{"from_position": -1}]}, "when.all.0.from_position"),
        ({"beside": "x"}, "when.beside"),
        ({}, "when"),
    ],
)
def test_a_faulty_condition_is_refused_by_its_field(http: httpx.Client, served: LoadedModel, when: object, field: str):
    body = as_json(build_profile(served, "mine", heads=SCALES), when=when)
    refused = http.put("/v1/profiles/mine", content=body, headers=JSON)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, field)


def test_final_layers_with_conditions_of_their_own_are_put_and_applied_and_parts_of_them_left_out(
    http: httpx.Client, served: LoadedModel
):
    layers = [(0.5, 0.9, CONDITIONS["matches"].when), (0.25, -0.5, CONDITIONS["last prompt token"].when)]
    profile = build_profile(served, "layered", final_layers=layers)
    parts = [build_profile(served, f"layer-{place}", final_layers=[layer]) for place, layer in enumerate(layers)]
    parts[1] = build_profile(
        served, "layer-1", self_only_attention=0.25, intercept_scale=-0.5, when=layers[1][2], seed=1
    )
    for one in (profile, *parts):
        assert put(http, one).status_code == 201
    body = {"prompt": PROMPT, "max_tokens": 4, "temperature": 0, "logprobs": 2, "ignore_eos": True}
    arms = [
        "layered",
        "layer-0+layer-1",
        {"profile": "layered", "except": ["final_layer.intercept"]},
        "baseline",
    ]
    whole, together, shares, plain = http.post("/v1/completions", json=body | {"arms": arms}).json()["choices"]
    assert whole["logprobs"] == together["logprobs"]
    assert len({str(one["logprobs"]) for one in (whole, shares, plain)}) == 3
    listed = http.get("/v1/profiles/layered").json()
    assert listed["profile"]["final_layers"][1] == {
        "own_attention": 0.25,
        "intercept_scale": -0.5,
        "when": layers[1][2],
    }
    assert listed["own_attention_range"] == [0.0, 2.0]
