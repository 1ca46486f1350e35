"""Arms of a request, without a server: the three ways to give steering result in the same labelled arms."""

import hashlib

import pytest
import torch

from steering_profiles.composition import UNSTEERED
from steering_profiles.errors import ProfileMismatch
from steering_profiles.store import Catalogue, save_profile
from steering_server.access.callers import Caller
from steering_server.api.arms import Arms, resolve_arms
from steering_server.api.schemas.requests import CompletionBody
from steering_server.engines.local.backend import LocalBackend
from steering_server.errors import NotFound, RequestError
from steering_server.limits import EngineLimits
from tests.builders import build_model, build_profile, profiles_for
from tests.families import build_family
from tests.serving import build_backend

NAME = "tiny-llama"


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> LocalBackend:
    folder, model = tmp_path_factory.mktemp("profiles"), build_model("llama", dtype=torch.float32)
    for profile in profiles_for(model):
        save_profile(profile, folder)
    return build_backend(model, Catalogue.open(folder, shipped=False), EngineLimits(max_num_seqs=1))


def resolve(backend: LocalBackend, **body) -> Arms:
    return resolve_arms(CompletionBody.model_validate({"prompt": "x", **body}), backend, Caller())


@pytest.mark.parametrize("body", [{}, {"model": NAME}, {"model": None, "steering": None, "arms": None}], ids=str)
def test_a_request_without_steering_gets_the_baseline(backend, body):
    arms = resolve(backend, **body)
    assert (arms.model, arms.named, arms.header) == (NAME, False, "baseline")
    assert [arm.steering for arm in arms.arms] == [UNSTEERED]


@pytest.mark.parametrize(
    "body",
    [
        {"model": f"{NAME}+heads+final"},
        {"steering": {"profile": "heads+final"}},
        {"steering": {"profile": ["heads", "final"]}},
        {"arms": ["heads+final"]},
        {"arms": [{"profile": ["heads", "final"]}]},
    ],
    ids=str,
)
def test_profiles_compose_in_the_given_order_in_all_three_ways(backend, body):
    (arm,) = resolve(backend, **body).arms
    assert arm.label == "heads+final"
    assert [(one.profile.name, one.strength) for one in arm.steering] == [("heads", 1), ("final", 1)]


@pytest.mark.parametrize(
    ("arm", "label"),
    [
        ("baseline", "baseline"),
        ("heads", "heads"),
        ({"profile": "heads"}, "heads"),
        ({"profile": "heads", "strength": 0.5}, "heads@0.5"),
        ({"profile": ["heads", "final"], "strength": -2}, "heads+final@-2"),
        ({"profile": "heads", "strength": 0.5, "name": "half"}, "half"),
    ],
    ids=str,
)
def test_an_arm_is_labelled_by_its_name_or_else_by_its_profiles_and_strength(backend, arm, label):
    assert resolve(backend, arms=[arm]).arms[0].label == label


@pytest.mark.parametrize("strengths", [(0.5, 0.50000001), (-2, -2.0000001), (1e-7, 1.0000000001e-7)], ids=str)
def test_strengths_that_differ_little_have_labels_and_headers_of_their_own(backend, strengths):
    arms = resolve(backend, arms=[{"profile": "heads", "strength": strength} for strength in strengths])
    assert [float(arm.label.removeprefix("heads@")) for arm in arms.arms] == list(strengths)
    assert [float(told.rpartition("strength=")[2]) for told in arms.header.split(", ")] == list(strengths)


def test_a_composed_arm_is_hashed_over_the_hashes_of_its_profiles_in_order(backend):
    (arm,) = resolve(backend, arms=["heads+final"]).arms
    hashes = [backend.profiles[name].entry.content_hash for name in ("heads", "final")]
    assert [one.content_hash for one in arm.applied.profiles] == hashes
    assert arm.applied.content_hash == f"sha256:{hashlib.sha256('+'.join(hashes).encode()).hexdigest()}"
    (turned,) = resolve(backend, arms=["final+heads"]).arms
    assert turned.applied.content_hash != arm.applied.content_hash


def test_the_header_names_every_arm_and_each_of_its_profiles(backend):
    header = resolve(backend, arms=["baseline", {"profile": "heads+final", "strength": 0.5, "name": "b"}]).header
    short = {name: card.entry.content_hash.removeprefix("sha256:")[:12] for name, card in backend.profiles.items()}
    assert header == (
        f"baseline, b;profile=heads;hash={short['heads']};strength=0.5;profile=final;hash={short['final']};strength=0.5"
    )


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"model": f"{NAME}+heads", "steering": {"profile": "final"}}, "steering"),
        ({"model": f"{NAME}+heads", "arms": ["final"]}, "arms"),
        ({"steering": {"profile": "heads"}, "arms": ["final"]}, "arms"),
        ({"arms": ["heads", {"profile": "final", "name": "heads"}]}, "arms.1"),
        ({"arms": ["heads+heads"]}, "arms.0"),
        ({"model": f"{NAME}+heads+heads"}, "model"),
    ],
    ids=str,
)
def test_steering_given_in_two_ways_and_equal_arms_are_refused_by_field(backend, body, param):
    with pytest.raises(RequestError) as caught:
        resolve(backend, **body)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"model": "other"}, "model", "model_not_found"),
        ({"model": f"{NAME}-heads"}, "model", "model_not_found"),
        ({"model": f"{NAME}+"}, "model", "model_not_found"),
        ({"model": f"{NAME}+nope"}, "model", "model_not_found"),
        ({"steering": {"profile": ["heads", "nope"]}}, "steering.profile", "profile_not_found"),
        ({"arms": [{"profile": "nope"}]}, "arms.0.profile", "profile_not_found"),
    ],
    ids=str,
)
def test_an_unknown_model_or_profile_is_not_found_by_field(backend, body, param, code):
    with pytest.raises(NotFound) as caught:
        resolve(backend, **body)
    assert (caught.value.param, caught.value.code) == (param, code)


@pytest.mark.parametrize(
    ("body", "label", "strength"),
    [
        ({"model": f"{NAME}+heads@0.5"}, "heads@0.5", 0.5),
        ({"model": f"{NAME}+heads@.50"}, "heads@0.5", 0.5),
        ({"model": f"{NAME}+heads+final@-2"}, "heads+final@-2", -2),
        ({"model": f"{NAME}+heads@1"}, "heads", 1),
        ({"model": f"{NAME}+heads@1e-07"}, "heads@1e-07", 1e-7),
        ({"arms": ["heads@0.50"]}, "heads@0.50", 0.5),
        ({"arms": ["heads+final@10"]}, "heads+final@10", 10),
    ],
    ids=str,
)
def test_a_name_can_say_the_strength_of_all_its_profiles(backend, body, label, strength):
    (arm,) = resolve(backend, **body).arms
    assert (arm.label, {one.strength for one in arm.steering}) == (label, {strength})


@pytest.mark.parametrize(
    "body",
    [{"model": f"{NAME}+baseline"}, {"steering": {"profile": "baseline"}}, {"steering": {"profile": ["baseline"]}},
     {"steering": {"profile": "baseline", "strength": 0}}, {"arms": ["baseline"]}, {"arms": [{"profile": "baseline"}]}],
    ids=str,
)  # fmt: skip
def test_the_baseline_can_be_named_in_all_three_ways(backend, body):
    (arm,) = resolve(backend, **body).arms
    assert (arm.label, arm.steering, arm.applied.profile) == ("baseline", UNSTEERED, None)


@pytest.mark.parametrize(
    ("body", "param", "says"),
    [
        ({"model": f"{NAME}+heads@"}, "model", "the strength after @ is ''; allowed: a number in -10..10 at the end"),
        ({"model": f"{NAME}+heads@half"}, "model", "after @ is 'half'; allowed"),
        ({"model": f"{NAME}+heads@11"}, "model", "after @ is '11'; allowed: a number in -10..10"),
        ({"model": f"{NAME}+heads@nan"}, "model", "after @ is 'nan'"),
        ({"model": f"{NAME}+heads@1e999"}, "model", "after @ is '1e999'"),
        ({"model": f"{NAME}+heads@0.5@0.5"}, "model", "after @ is '0.5@0.5'"),
        ({"model": f"{NAME}+heads@0.5+final"}, "model", r"after @ is '0.5\+final'; allowed: .* such as a@0.5 or a"),
        ({"model": f"{NAME}+heads@{'9' * 9999}"}, "model", "after @ is '9999"),
        ({"model": f"{NAME}+baseline@0.5"}, "model", "baseline has no strength"),
        ({"model": f"{NAME}+{'+'.join(map(str, range(17)))}"}, "model", "at most 16"),
        ({"model": f"{NAME}+baseline", "steering": {"profile": "heads"}}, "steering", "given by model already"),
        ({"arms": ["heads", "baseline+heads"]}, "arms.1", "baseline is the unsteered model and cannot be combined"),
        ({"arms": ["heads@x"]}, "arms.0", "after @ is 'x'"),
        ({"arms": [{"profile": "heads@0.5"}]}, "arms.0.profile", "a strength in arms.0.strength"),
        ({"steering": {"profile": ["heads", "final@2"]}}, "steering.profile", "a strength in steering.strength"),
        ({"steering": {"profile": "baseline", "strength": 2}}, "steering.strength", "baseline has no strength"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_strength_in_a_name_that_cannot_be_applied_is_refused_by_field_and_value(backend, body, param, says):
    with pytest.raises(RequestError, match=says) as caught:
        resolve(backend, **body)
    assert (caught.value.param, len(str(caught.value)) < 200) == (param, True)


def test_an_arm_reports_its_effective_changes(backend):
    (arm,) = resolve(backend, steering={"profile": "heads+final", "strength": 0.5}).arms
    assert arm.applied.effective.model_dump() == {
        "heads": 3, "neurons": 0, "own_attention": 0.5, "intercept_scale": 0.45, "gate": None
    }  # fmt: skip
    assert arm.applied.warnings == ()


@pytest.mark.parametrize(("strength", "share"), [(-1, 0), (2, 1), (10, 1)])
def test_a_strength_outside_the_range_of_self_only_attention_gives_a_warning(backend, strength, share):
    (arm,) = resolve(backend, steering={"profile": "final", "strength": strength}).arms
    assert arm.applied.effective.own_attention == share
    assert f"is clamped to {share}" in arm.applied.warnings[0]


@pytest.mark.parametrize("name", ["baseline", "Baseline", "BASELINE"])
def test_a_steered_arm_may_not_be_called_baseline(backend, name):
    with pytest.raises(RequestError, match="reserved for the unsteered model") as refused:
        resolve(backend, arms=["baseline", {"name": name, "profile": "heads"}])
    assert refused.value.param == "arms.1.name"


def test_an_arm_of_strength_0_is_the_baseline_and_may_be_called_so(backend):
    (arm,) = resolve(backend, arms=[{"name": "baseline", "profile": "heads", "strength": 0}]).arms
    assert arm.applied.effective.heads == 0


@pytest.mark.parametrize("strength", [0, -0.0, 1e-12])
def test_an_arm_that_changes_nothing_is_computed_with_the_baseline(backend, strength):
    (arm,) = resolve(backend, steering={"profile": "heads", "strength": strength}).arms
    assert arm.steering is UNSTEERED
    assert (arm.applied.profile, bool(arm.applied.warnings)) == ("heads", strength != 0)


def test_minus_zero_is_zero(backend):
    (arm,) = resolve(backend, arms=[{"profile": "heads", "strength": -0.0}]).arms
    assert arm.label == "heads@0"


def test_a_profile_that_the_engine_refuses_is_answered_with_the_reason(backend, monkeypatch: pytest.MonkeyPatch):
    refuses = {"heads": None, "final": "final_layer: this engine has no hook there"}
    monkeypatch.setattr(backend, "refuses", lambda profile: refuses[profile.name])
    assert resolve(backend, arms=["heads"]).arms[0].label == "heads"
    with pytest.raises(RequestError, match=r"arms\.1: profile final cannot be applied .*no hook there") as caught:
        resolve(backend, arms=["heads", "final"])
    assert caught.value.param == "arms.1"


def test_neurons_in_experts_are_refused_by_the_local_engine_and_listed_with_the_reason(tmp_path):
    experts = build_family("qwen3-moe")
    profile = build_profile(experts, neurons=[(0, 1, 2.0)])
    save_profile(profile, tmp_path)
    catalogue = Catalogue.open(tmp_path, shipped=False)
    with pytest.raises(ProfileMismatch, match=r"cannot be scaled: .* keeps its neurons in experts"):
        build_backend(experts, catalogue, force=True)
    save_profile(build_profile(experts, heads=[(0, 1, 2.0)]), tmp_path)
    backend = build_backend(experts, catalogue := Catalogue.open(tmp_path, shipped=False))
    assert backend.refuses(profile).startswith("neurons: this model's neurons cannot be scaled")
    assert backend.refuses(catalogue["test"].profile) is None
