"""Side-effect warnings of profiles."""

import subprocess
import sys
from typing import Any

import pytest

from steering_profiles.evaluation import SideEffects, TextEffect
from steering_profiles.evaluation.side_effects import LastWordsEffect, PairsEffect, PairsEffects
from steering_profiles.schema import Profile, Provenance
from steering_profiles.side_effect_warnings import is_measured, percent, side_effect_warnings
from tests.library.examples import example


def measured(**side_effects: Any) -> Profile:
    provenance = Provenance(tool_version="0", command="steer fit", task="t", seed=0, side_effects=side_effects)
    return example(provenance=provenance)


def effect(name: str, after: float) -> TextEffect:
    return TextEffect(name, tokens=100, nll_before=2.0, nll_after=after, agreement=0.9)


def test_warnings_list_texts_above_the_limit_worst_first():
    effects = SideEffects(
        (effect("prose", 2.03), effect("code", 2.018), effect("solutions", 2.2), effect("better", 1.5))
    )
    assert side_effect_warnings(measured(**effects.record())) == ["solutions +10.0%", "prose +1.5%"]


def test_an_increase_equal_to_the_limit_gives_no_warning():
    profile = measured(**SideEffects((effect("prose", 2.5),)).record())
    assert side_effect_warnings(profile, limit=0.25) == []
    assert side_effect_warnings(profile, limit=0.2499) == ["prose +25.0%"]


def share(before: float, after: float, interval: tuple[float, float] | None) -> PairsEffect:
    return PairsEffect("articles", 48, (before, after), interval, (3.0, 3.0), (-0.1, 0.1))


def test_minimal_pairs_and_last_words_that_lose_more_than_a_point_and_their_interval_follow():
    pairs = PairsEffects(share(0.9, 0.88, (-0.03, -0.01)), (share(1.0, 0.95, (-0.1, -0.01)),))
    words = LastWordsEffect(470, (0.3, 0.27), (-0.05, -0.01), (3.0, 3.1), (0.01, 0.05))
    profile = measured(**SideEffects((effect("prose", 2.5),), words, pairs).record())
    assert side_effect_warnings(profile) == [
        "prose +25.0%", "minimal pairs, articles -5.0 points", "last words -3.0 points", "minimal pairs -2.0 points"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("before", "after", "interval"),
    [(0.9, 0.8, (-0.2, 0.01)), (0.9, 0.89, (-0.01, -0.009)), (0.9, 0.99, (0.01, 0.2)), (0.9, 0.8, None)],
    ids=["its interval has 0", "a point", "a gain", "too few for an interval"],
)
def test_a_smaller_loss_of_minimal_pairs_is_no_warning(
    before: float, after: float, interval: tuple[float, float] | None
):
    pairs = PairsEffects(share(before, after, interval), ())
    assert side_effect_warnings(measured(**SideEffects((), minimal_pairs=pairs).record())) == []


@pytest.mark.parametrize(
    ("record", "name"),
    [
        ({"kind": "last words"}, "last words"),
        ({"kind": "last words", "correct_before": "1", "correct_after": 1.0}, "last words"),
        ({"kind": "x", "correct_before": 1.0, "correct_after": 1.0, "phenomena": 3}, "last words: phenomena"),
        ({"kind": "x", "correct_before": 1.0, "correct_after": 1.0, "phenomena": {"a": 3}}, "last words, a"),
    ],
)
def test_a_record_of_another_kind_that_cannot_be_read_is_flagged(record: Any, name: str):
    assert side_effect_warnings(measured(**{"last words": record})) == [f"{name}: not readable"]


@pytest.mark.parametrize("profile", [example(), measured()], ids=["no provenance", "not measured"])
def test_missing_measurements_are_no_proof_of_harmlessness(profile: Profile):
    assert not is_measured(profile)
    assert side_effect_warnings(profile) == []
    assert is_measured(measured(**SideEffects((effect("prose", 2.0),)).record()))


@pytest.mark.parametrize(
    "record",
    [None, 3, [], {}, {"nll_before": 1.0}, {"nll_before": "1", "nll_after": 2.0}, {"nll_before": 0, "nll_after": 2.0},
     {"nll_before": True, "nll_after": 1.0}],
)  # fmt: skip
def test_a_record_that_cannot_be_read_is_flagged(record: Any):
    assert side_effect_warnings(measured(prose=record)) == ["prose: not readable"]


@pytest.mark.parametrize(
    ("change", "text"), [(0.0234, "+2.3%"), (-0.05, "-5.0%"), (0.00042, "+0.04%"), (0.0, "+0.00%")]
)
def test_changes_are_written_with_their_sign(change: float, text: str):
    assert percent(change) == text


def test_warnings_need_no_torch():
    code = "import sys, steering_profiles.side_effect_warnings; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
