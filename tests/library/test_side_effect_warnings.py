"""Side-effect warnings of profiles."""

import subprocess
import sys
from typing import Any

import pytest

from steering_profiles.evaluation import SideEffects, TextEffect
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
