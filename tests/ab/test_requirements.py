"""Requirements: how they are read, and which end of the interval they compare."""

import pytest

from steering_ab.errors import RequirementError
from steering_ab.requirements import Requirement, parse_requirement, require_known
from steering_ab.statistics.intervals import Interval


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("parentheses - baseline >= 0.05", ("parentheses", "baseline", ">=", 0.05, None, None)),
        ("parentheses - baseline > -0.02 on tag:other", ("parentheses", "baseline", ">", -0.02, "other", None)),
        ("my-profile@0.5 - a+b < 3e1 by length:words", ("my-profile@0.5", "a+b", "<", 30, None, "length:words")),
        ('a - b >= 5% on tag:"two words" by exact', ("a", "b", ">=", 0.05, "two words", "exact")),
        ("a - b >= .5 on tag:two words by exact", ("a", "b", ">=", 0.5, "two words", "exact")),
        ("a − b ≥ 0", ("a", "b", ">=", 0, None, None)),
        ("  a >= 0.9 ", ("a", None, ">=", 0.9, None, None)),
    ],
)
def test_a_requirement_is_read(text: str, expected: tuple[object, ...]):
    found = parse_requirement(text)
    assert (found.arm, found.reference, found.operator, found.value, found.tag, found.grader) == expected
    assert found.text == text.strip()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "a - b",
        "a - b 0.05",
        "a - b = 0.05",
        "a - b == 0",
        "a - b >= ",
        "a - b >= x",
        "a - b >= nan",
        "a - b >= inf",
        "a - b >= 1e999",
        "a - b >= 0.05 on other",
        "a - b >= 0.05 tag:other",
        "a - b - c >= 0",
        ">= 1",
        "a - >= 1",
    ],
)
def test_what_is_no_requirement_is_refused(text: str):
    with pytest.raises(RequirementError, match=r"allowed|finite"):
        parse_requirement(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("c - baseline > 0", "'c' is no arm; arms: baseline, parentheses"),
        ("parentheses-baseline > 0", "is no arm.*a minus has spaces around it"),
        ("baseline - baseline > 0", "compares 'baseline' with itself"),
        ("parentheses - baseline > 0 on tag:cod", "no item has the tag 'cod'; tags: code"),
        ("parentheses - baseline > 0 by exakt", "'exakt' is no grader of this run; graders: exact"),
    ],
)
def test_a_requirement_of_what_is_not_compared_is_refused(text: str, message: str):
    with pytest.raises(RequirementError, match=message):
        require_known([parse_requirement(text)], ("baseline", "parentheses"), ("code",), ("exact",))


def requirement(operator: str, value: float) -> Requirement:
    return Requirement("", "a", "b", operator, value)


def test_the_end_of_the_interval_that_is_closer_to_failing_is_compared():
    interval = Interval(0.1, 0.3)
    assert requirement(">=", 0.1).holds(interval)
    assert not requirement(">", 0.1).holds(interval)
    assert not requirement(">=", 0.2).holds(interval)
    assert requirement("<=", 0.3).holds(interval)
    assert not requirement("<", 0.3).holds(interval)
    assert not requirement("<=", 0.2).holds(interval)
