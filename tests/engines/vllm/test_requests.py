"""What requests ask of the vLLM plugin."""

from typing import Any

import pytest

from steering_profiles.models import LoadedModel
from steering_server.engines.vllm.plugin.requests import requested_steering
from steering_server.engines.vllm.plugin.served import ServedProfiles
from steering_server.errors import RequestError
from tests.builders import build_model, build_profile
from tests.engines.vllm.standins import served


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return build_model("llama")


@pytest.fixture(scope="module")
def profiles(loaded: LoadedModel) -> ServedProfiles:
    return served(
        loaded,
        build_profile(loaded, "a", heads=[(0, 1, 2.0)]),
        build_profile(loaded, "b", neurons=[(1, 2, 0.5)]),
        build_profile(loaded, "gated", self_only_attention=1.0, gate=(0.1, 0.5)),
        unusable={"gated": "a gate needs two passes"},
    )


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, {}),
        ({}, {}),
        ({"other": 1}, {}),
        ({"steering": "baseline"}, {}),
        ({"steering": "a"}, {"a": 1.0}),
        ({"steering": "a@0.5"}, {"a": 0.5}),
        ({"steering": "b+a@-2"}, {"a": -2.0, "b": -2.0}),
        ({"steering": "a", "strength": 2}, {"a": 2.0}),
        ({"steering": "a+b", "strength": [1, 0.25]}, {"a": 1.0, "b": 0.25}),
        ({"steering": ["b", "a"], "strength": [0.25, 1.0]}, {"a": 1.0, "b": 0.25}),
        ({"steering": ["a", "b"], "strength": 3}, {"a": 3.0, "b": 3.0}),
        ({"steering": "a", "strength": 0}, {}),
    ],
)
def test_a_request_names_profiles_and_strengths(
    profiles: ServedProfiles, given: dict[str, Any], expected: dict[str, float]
) -> None:
    steering = requested_steering(given, profiles)
    assert {one.profile.name: one.strength for one in steering} == expected


def test_a_request_leaves_components_out_of_the_profiles_that_have_them(profiles: ServedProfiles) -> None:
    steering = requested_steering({"steering": "a+b", "except": ["L1N2"]}, profiles)
    assert [(one.profile.name, one.left_out) for one in steering] == [("a", ()), ("b", ("L1N2",))]
    whole = requested_steering({"steering": "a+b"}, profiles)
    assert [one.key == other.key for one, other in zip(steering, whole, strict=True)] == [True, False]


def test_the_order_of_names_does_not_matter(profiles: ServedProfiles) -> None:
    one, other = (requested_steering({"steering": label}, profiles) for label in ("a+b", "b+a"))
    assert [applied.key for applied in one] == [applied.key for applied in other]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"steering": "nope"}, "steering: no profile named 'nope'; this server has: a, b"),
        ({"steering": "gated"}, "steering: profile gated cannot be applied: a gate needs two passes"),
        ({"steering": "a+a"}, "profile 'a' is named twice"),
        ({"steering": "a@x"}, "the strength after @ is 'x'"),
        ({"steering": "a@0.5", "strength": 1}, "strength is given twice"),
        ({"strength": 1}, "strength is given without steering"),
        ({"steering": "a", "strength": float("nan")}, "strength is nan; allowed: finite numbers in -10..10"),
        ({"steering": "a", "strength": 11}, "strength is 11.0; allowed: finite numbers in -10..10"),
        ({"steering": "a", "strength": 10**400}, "int too large"),
        ({"steering": "a", "strength": True}, "strength is True; allowed: a number"),
        ({"steering": "a", "strength": "1"}, "strength is '1'; allowed: a number"),
        ({"steering": ["a"], "strength": [1, 2]}, "strength has 2 numbers for 1 profiles"),
        ({"steering": 1}, "steering is 1; allowed: a label such as a+b@0.5, or a list"),
        ({"steering": []}, "steering is []; allowed: a label"),
        ({"steering": ["a@0.5"]}, "steering has 'a@0.5' in a list"),
        ({"steering": ["baseline"]}, "steering has 'baseline' in a list"),
        ({"steering": "baseline", "strength": 0.5}, "strength: baseline has no strength"),
        ({"steering": ["a"] * 17}, "steering names 17 profiles; at most 16"),
        ({"steering": ""}, "no profile named ''"),
        ({"except": ["L0H1"]}, "except is given without steering"),
        ({"steering": "a", "except": "L0H1"}, "except is 'L0H1'; allowed: a list of components"),
        ({"steering": "a", "except": [1]}, "except is [1]; allowed: a list of components"),
        ({"steering": "a", "except": ["L0H2"]}, "except: a does not change L0H2; allowed: L0H1"),
        ({"steering": "baseline", "except": ["L0H1"]}, "except: baseline has no components"),
    ],
)
def test_what_cannot_be_applied_is_refused_by_name(
    profiles: ServedProfiles, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError) as refused:
        requested_steering(given, profiles)
    assert message in str(refused.value)
