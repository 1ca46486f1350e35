"""Exposure ids say what was exposed to what, and cannot be made up."""

import secrets

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steering_server.experiments.exposure_ids import LENGTH, ExposureId, new_exposure_id, read_exposure_id

SECRET = bytes(range(32))
CONTENT = ExposureId(arm=1, period=3, unit=b"12345678")


@given(st.integers(0, 7), st.integers(1, 60_000), st.binary(min_size=8, max_size=8))
def test_an_id_holds_the_arm_the_period_and_the_unit(arm: int, period: int, unit: bytes):
    content = ExposureId(arm, period, unit)
    made = new_exposure_id(content, SECRET)
    assert len(made) == LENGTH
    assert read_exposure_id(made, SECRET) == content


def test_two_exposures_of_a_unit_have_different_ids():
    assert len({new_exposure_id(CONTENT, SECRET) for _ in range(100)}) == 100


def test_an_id_of_another_experiment_is_not_read():
    assert read_exposure_id(new_exposure_id(CONTENT, SECRET), secrets.token_bytes(32)) is None


@pytest.mark.parametrize("place", [4, 5, 6, 20, 46, 47])
def test_an_id_with_another_character_is_not_read(place: int):
    made = new_exposure_id(CONTENT, SECRET)
    changed = made[:place] + ("B" if made[place] != "B" else "C") + made[place + 1 :]
    assert read_exposure_id(changed, SECRET) is None


@given(st.text(max_size=60) | st.text("Aa0-_=", min_size=44, max_size=44).map("exp_".__add__))
def test_any_other_text_is_no_id(text: str):
    assert read_exposure_id(text, SECRET) is None
