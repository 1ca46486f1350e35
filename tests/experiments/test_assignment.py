"""Units are assigned by hash: sticky, by the weights, and moved as little as possible when those change."""

import pytest
from scipy import stats

from steering_server.experiments.assignment import Assigner

THIRDS = {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}


def arms(weights: dict[str, float], units: int, *, name: str = "greeting", salt: str = "salt") -> list[str]:
    assigner = Assigner(name, salt, weights)
    return [assigner.arm_of(b"user-%d" % unit) for unit in range(units)]


def p_value(weights: dict[str, float], units: int, **options: str) -> float:
    assigned = arms(weights, units, **options)
    observed = [assigned.count(arm) for arm in weights]
    return float(stats.chisquare(observed, [weight * units for weight in weights.values()]).pvalue)


def test_a_unit_always_has_the_same_arm():
    assert arms(THIRDS, 500) == arms(dict(reversed(THIRDS.items())), 500)


def test_assignment_is_the_same_in_every_version():
    # Were it to change, an update of the server would shuffle the units of every running experiment.
    assert "".join(arms(THIRDS, 24)) == "aabcccacbcbccbabacbccbcc"
    assert Assigner("greeting", "salt", THIRDS).unit_hash(b"user-0").hex() == "d81269b5018c603c"


@pytest.mark.parametrize("weights", [{"a": 0.5, "b": 0.5}, {"a": 0.9, "b": 0.1}, THIRDS | {"a": 0.2, "b": 7 / 15}])
def test_units_are_divided_by_the_weights(weights: dict[str, float]):
    assert p_value(weights, 30_000) > 0.001


@pytest.mark.slow
@pytest.mark.parametrize("weights", [{"a": 0.5, "b": 0.5}, THIRDS, {"a": 0.95, "b": 0.05}])
def test_a_million_units_are_divided_by_the_weights(weights: dict[str, float]):
    assert p_value(weights, 1_000_000) > 0.001


@pytest.mark.parametrize("salt", ["salt", "other", "x" * 64])
def test_another_name_or_salt_divides_units_independently(salt: str):
    one, other = arms({"a": 0.5, "b": 0.5}, 8000), arms({"a": 0.5, "b": 0.5}, 8000, name="second", salt=salt)
    both = [[sum(pair == (x, y) for pair in zip(one, other, strict=True)) for y in "ab"] for x in "ab"]
    assert stats.chi2_contingency(both).pvalue > 0.001


@pytest.mark.parametrize(
    ("after", "moved"),
    [
        ({"a": 0.5, "b": 0.25, "c": 0.25}, 1 / 6),
        ({"a": 0.0, "b": 0.5, "c": 0.5}, 1 / 3),
        ({"a": 0.9, "b": 0.05, "c": 0.05}, 0.9 - 1 / 3),
    ],
)
def test_a_change_of_weights_moves_as_few_units_as_the_arms_must_gain(after: dict[str, float], moved: float):
    before, then = arms(THIRDS, 20_000), arms(after, 20_000)
    changed = [(old, new) for old, new in zip(before, then, strict=True) if old != new]
    assert len(changed) / 20_000 == pytest.approx(moved, abs=0.012)
    gaining = {arm for arm in THIRDS if after[arm] > THIRDS[arm]}
    assert {new for _, new in changed} <= gaining
    assert not {old for old, _ in changed} & gaining


def test_an_arm_of_weight_0_has_no_units():
    assert set(arms({"a": 0.0, "b": 0.7, "c": 0.3}, 3000)) == {"b", "c"}


def test_a_unit_is_stored_as_a_hash_that_differs_between_experiments():
    hashes = {Assigner(name, salt, THIRDS).unit_hash(b"someone@example.org") for name in "xy" for salt in "st"}
    assert len(hashes) == 4
    assert all(len(hashed) == 8 for hashed in hashes)
