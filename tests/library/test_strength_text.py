"""Strengths as text: the shortest text that parses to the same number."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steering_profiles.fields import strength_text


@given(st.floats(allow_nan=False))
def test_the_text_reads_as_the_same_number(strength: float):
    read = float(strength_text(strength))
    assert (read, math.copysign(1, read)) == (strength, math.copysign(1, strength))


@pytest.mark.parametrize(
    ("strength", "text"),
    [(2.0, "2"), (2, "2"), (0.5, "0.5"), (-10.0, "-10"), (0.1 + 0.2, "0.30000000000000004"), (-1e-07, "-1e-07")],
)
def test_the_text_has_no_needless_digits(strength: float, text: str):
    assert strength_text(strength) == text
