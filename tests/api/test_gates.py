"""Gated profiles over HTTP: they are listed with their gates, applied by them, and composed only if the gates agree."""

from collections.abc import Iterator

import httpx
import pytest

from steering_profiles.models import LoadedModel
from steering_profiles.schema import Profile
from steering_profiles.store import content_hash
from tests.builders import build_model, build_profile
from tests.engines.local.running import GREEDY
from tests.engines.local.test_gating import FINAL, HIGH, LOW, slowly
from tests.serving import serving

PROMPT = "print(str(str("
OTHERWISE = r"different gates cannot be composed: gated (0.05..0.09) and otherwise (0..0.5)"


def profiles_for(loaded: LoadedModel) -> list[Profile]:
    return [
        build_profile(loaded, "gated", **FINAL, gate=(LOW, HIGH)),
        build_profile(loaded, "alike", intercept_scale=-0.3, gate=(LOW, HIGH), seed=2),
        build_profile(loaded, "otherwise", self_only_attention=1.0, gate=(0.0, 0.5)),
        build_profile(loaded, "heads", heads=[(0, 1, 4.0), (1, 2, -2.0)]),
    ]


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return build_model("llama")


@pytest.fixture(scope="module")
def http(loaded: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with (
        serving(build_model("llama"), tmp_path_factory.mktemp("p"), profiles_for(loaded)) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        yield client


def test_a_gate_is_listed_and_shown(http: httpx.Client):
    shown = http.get("/v1/profiles/gated").json()
    where = "where the top probability is 0.05..0.09"
    assert shown["summary"] == f"self-only attention 1 and intercept x 0.7 {where}"
    assert shown["profile"]["final_layer"]["gate"] == {"low": LOW, "high": HIGH}


def test_arms_with_and_without_a_gate_answer_side_by_side(http: httpx.Client, loaded: LoadedModel):
    by_name = {profile.name: profile for profile in profiles_for(loaded)}
    arms = {"baseline": (), "gated": ("gated",), "heads+gated": ("heads", "gated"), "gated+alike": ("gated", "alike")}
    opened: list[bool] = []
    prompt = loaded.tokenizer.encode(PROMPT)
    expected = {
        arm: loaded.tokenizer.decode(slowly(loaded, prompt, tuple(by_name[name] for name in names), opened))
        for arm, names in arms.items()
    }
    assert len(set(expected.values())) == len(arms)
    body = {"prompt": PROMPT, "arms": list(arms), "max_tokens": GREEDY.max_tokens, "temperature": 0, "ignore_eos": True}
    answer = http.post("/v1/completions", json=body).json()
    assert {choice["arm"]: choice["text"] for choice in answer["choices"]} == expected
    applied = answer["steering"]["arms"][1]
    assert (applied["profile"], applied["content_hash"]) == ("gated", content_hash(by_name["gated"]))


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"model": "tiny-llama+gated+otherwise"}, "model"),
        ({"steering": {"profile": ["gated", "heads", "otherwise"], "strength": 0.5}}, "steering.profile"),
        ({"arms": ["gated", "otherwise", "gated+otherwise"]}, "arms.2"),
    ],
    ids=["model", "steering", "arms"],
)
@pytest.mark.parametrize("stream", [False, True])
def test_profiles_with_different_gates_in_one_arm_are_a_400_that_names_them(
    http: httpx.Client, asked: dict, param: str, stream: bool
):
    response = http.post("/v1/completions", json={"prompt": PROMPT, "stream": stream, **asked})
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, param)
    assert error["message"].startswith(f"{param}: ")
    assert OTHERWISE in error["message"]
