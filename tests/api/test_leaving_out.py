"""Components left out of a profile by a request: ``except`` in ``steering`` and in ``arms``."""

from collections.abc import Iterator

import httpx
import pytest
import torch

from steering_profiles.composition import UNSTEERED, ProfileAtStrength
from steering_profiles.leaving_out import leave_out
from steering_profiles.schema import Profile
from steering_profiles.store import Catalogue, save_profile
from steering_server.access.callers import Caller
from steering_server.api.arms import Arms, resolve_arms
from steering_server.api.schemas.requests import CompletionBody
from steering_server.engines.local.backend import LocalBackend
from steering_server.errors import RequestError
from steering_server.limits import EngineLimits
from tests.builders import build_model, build_profile, profiles_for
from tests.serving import build_backend, serving

LEFT_OUT = {
    "head": ("L1H2", "heads"),
    "neuron": ("L1N7", "neurons"),
    "self-only attention": ("final_layer.own_attention", "final"),
    "intercept": ("final_layer.intercept", "final"),
    "the only head of its layer": ("L0H1", "heads"),
}


@pytest.fixture(scope="module")
def profiles() -> list[Profile]:
    model = build_model("llama", dtype=torch.float32)
    return [*profiles_for(model), build_profile(model, "neurons", neurons=[(0, 2, 9.0), (1, 7, 9.0)])]


@pytest.fixture(scope="module")
def files_without(profiles: list[Profile]) -> list[Profile]:
    """For each case the profile that has the component removed, under a name of its own."""
    by_name = {profile.name: profile for profile in profiles}
    without = []
    for index, (component, name) in enumerate(LEFT_OUT.values()):
        (left,) = leave_out([ProfileAtStrength(by_name[name])], [component])
        without.append(left.profile.model_copy(update={"name": f"file-{index}"}))
    return without


@pytest.fixture(scope="module")
def http(
    profiles: list[Profile], files_without: list[Profile], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    model, folder = build_model("llama", dtype=torch.float32), tmp_path_factory.mktemp("profiles")
    with (
        serving(model, folder, [*profiles, *files_without]) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def backend(profiles: list[Profile], tmp_path_factory: pytest.TempPathFactory) -> LocalBackend:
    folder = tmp_path_factory.mktemp("profiles")
    for profile in profiles:
        save_profile(profile, folder)
    model = build_model("llama", dtype=torch.float32)
    return build_backend(model, Catalogue.open(folder, shipped=False), EngineLimits(max_num_seqs=1))


def resolve(backend: LocalBackend, **body) -> Arms:
    return resolve_arms(CompletionBody.model_validate({"prompt": "x", **body}), backend, Caller())


def answered(http: httpx.Client, path: str, body: dict) -> dict:
    answer = http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("case", range(len(LEFT_OUT)), ids=LEFT_OUT)
def test_an_arm_without_a_component_answers_as_the_profile_file_without_it(http: httpx.Client, case: int):
    component, profile = list(LEFT_OUT.values())[case]
    answer = answered(
        http,
        "/v1/completions",
        {
            "prompt": "print(str(1",
            "max_tokens": 12,
            "temperature": 0,
            "logprobs": 5,
            "arms": [profile, {"profile": profile, "except": [component], "name": "without"}, f"file-{case}"],
        },
    )
    whole, without, file = (choice["logprobs"] for choice in answer["choices"])
    assert without == file != whole


def test_an_arm_says_what_was_left_out_and_has_the_hash_of_what_is_left(backend: LocalBackend, profiles: list[Profile]):
    arms = resolve(backend, steering={"profile": "heads", "strength": 0.5, "except": ["L2H0", "L0H1"]})
    (left,) = leave_out([ProfileAtStrength(profiles[0])], ["L0H1", "L2H0"])
    (told,) = arms.arms[0].applied.profiles
    assert told.model_dump() == {
        "profile": "heads", "content_hash": left.key[0], "strength": 0.5, "except": ("L0H1", "L2H0")
    }  # fmt: skip
    assert arms.arms[0].applied.effective.heads == 1
    short = left.key[0].removeprefix("sha256:")[:12]
    assert arms.header == f"heads@0.5-L2H0-L0H1;profile=heads;hash={short};strength=0.5;except=L0H1+L2H0"


def test_an_answer_without_components_left_out_does_not_mention_them(backend: LocalBackend):
    (told,) = resolve(backend, steering={"profile": "heads", "except": []}).arms[0].applied.profiles
    assert "except" not in told.model_dump()


@pytest.mark.parametrize(
    ("path", "prompt"),
    [
        ("/v1/completions", {"prompt": "x", "max_tokens": 2}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], "max_tokens": 2}),
        ("/v1/responses", {"input": "x", "max_output_tokens": 2}),
    ],
)
def test_every_route_leaves_components_out(http: httpx.Client, path: str, prompt: dict):
    told = answered(http, path, {**prompt, "steering": {"profile": "heads", "except": ["L1H2"]}})["steering"]
    assert (told["profiles"][0]["except"], told["effective"]["heads"]) == (["L1H2"], 2)


def test_a_stream_leaves_components_out(http: httpx.Client):
    body = {"prompt": "x", "max_tokens": 2, "stream": True, "steering": {"profile": "heads", "except": ["L1H2"]}}
    answer = http.post("/v1/completions", json=body)
    # One event or two: what a busy server has ready at once is sent as one.
    assert answer.text.count('"except":["L1H2"]') == answer.text.count('"steering":') >= 1
    assert answer.headers["x-steering"].endswith(";except=L1H2")


def test_a_prompt_in_the_prefix_cache_is_computed_again_without_the_component(http: httpx.Client):
    def scores(**steering) -> list[float]:
        body = {"prompt": "the same prompt for all of them", "max_tokens": 1, "temperature": 0, "logprobs": 1}
        return answered(http, "/v1/completions", {**body, **steering})["choices"][0]["logprobs"]["token_logprobs"]

    file = scores(model="tiny-llama+file-0")
    whole = scores(steering={"profile": "heads"})
    without = scores(steering={"profile": "heads", "except": ["L1H2"]})
    assert scores(steering={"profile": "heads"}) == whole != without == file


def test_nothing_is_left_and_the_answer_is_the_baselines(backend: LocalBackend):
    (arm,) = resolve(backend, steering={"profile": "final", "except": ["final_layer"]}).arms
    assert arm.steering is UNSTEERED
    assert arm.applied.warnings == ("final: all that it changes is left out; the answer is the baseline's",)


@pytest.mark.parametrize(
    ("arm", "label"),
    [
        ({"profile": "heads", "except": ["L0H1"]}, "heads-L0H1"),
        ({"profile": "heads", "except": ["L0H1"], "strength": 2}, "heads@2-L0H1"),
        ({"profile": "heads", "except": ["L0H1"], "name": "mine"}, "mine"),
        ({"profile": "heads+final", "except": ["final_layer", "L0H1"]}, "heads+final-final_layer-L0H1"),
        (
            {"profile": "final", "except": ["final_layer", "final_layer.intercept", "final_layer.own_attention"]},
            "final-3-components",
        ),
    ],
    ids=str,
)
def test_an_arm_is_labelled_by_what_is_left_out_if_that_is_short(backend: LocalBackend, arm: dict, label: str):
    arms = resolve(backend, arms=["heads", arm])
    assert arms.arms[1].label == arms.arms[1].applied.arm == label


def test_a_long_list_is_shortened_in_the_header(backend: LocalBackend):
    wide = build_profile(build_model("llama"), "wide", neurons=[(0, neuron, 2.0) for neuron in range(10)])
    backend.profiles.put(wide, lambda _: None)
    arms = resolve(backend, steering={"profile": "wide", "except": [f"L0N{neuron}" for neuron in range(9)]})
    assert arms.header.endswith(";except=" + "+".join(f"L0N{neuron}" for neuron in range(8)) + "+1-more")


@pytest.mark.parametrize(
    ("body", "param", "says"),
    [
        ({"steering": {"profile": "heads", "except": ["L0H2"]}}, "steering.except", "heads does not change L0H2"),
        ({"steering": {"profile": "heads", "except": ["head 1"]}}, "steering.except", "'head 1' is not a component"),
        ({"steering": {"profile": "baseline", "except": ["L0H1"]}}, "steering.except", "baseline has no components"),
        (
            {"arms": ["heads", {"profile": "heads+final", "except": ["L0N1"]}]},
            "arms.1.except",
            "heads and final do not change L0N1",
        ),
    ],
    ids=str,
)
def test_a_component_that_cannot_be_left_out_is_refused_by_field(
    backend: LocalBackend, body: dict, param: str, says: str
):
    with pytest.raises(RequestError, match=f"{param}: {says}") as caught:
        resolve(backend, **body)
    assert caught.value.param == param


@pytest.mark.parametrize(
    "given", ["L0H1", [1], {"L0H1": True}, [None], ["L0H1"] * 4097], ids=lambda given: str(given)[:9]
)
@pytest.mark.parametrize("field", ["steering", "arms"])
def test_anything_but_a_list_of_names_is_refused(http: httpx.Client, field: str, given: object):
    steering = {"profile": "heads", "except": given}
    answer = http.post("/v1/completions", json={"prompt": "x", field: steering if field == "steering" else [steering]})
    assert answer.status_code == 400
    assert "except" in answer.json()["error"]["message"]
