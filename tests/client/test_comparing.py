"""Comparisons through the client: the package that makes them is asked for when they are made."""

import asyncio
import doctest
import sys

import pytest

import steering_client
from steering_client import MissingPackage, comparing

ITEMS = [{"prompt": str(n), "expected": str(n % 2)} for n in range(10)]
ANSWERS = {"zeros": ["0"] * 10, "parity": [str(n % 2) for n in range(10)]}


def test_the_example_does_what_it_shows():
    assert doctest.testmod(comparing, extraglobs={"ab": steering_client.ab}).failed == 0


def test_comparisons_work_with_and_without_an_event_loop():
    async def both() -> list[float]:
        awaited = await steering_client.ab_async(ITEMS, answers=ANSWERS)
        in_a_loop = steering_client.ab(ITEMS, answers=ANSWERS)
        return [each.comparisons[0].difference for each in (awaited, in_a_loop)]

    assert asyncio.run(both()) == [0.5, 0.5]
    assert steering_client.ab(ITEMS, answers=ANSWERS).comparisons[0].difference == 0.5


def test_without_the_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "steering_ab", None)
    with pytest.raises(MissingPackage, match="pip install steering-server"):
        steering_client.ab(ITEMS, answers=ANSWERS)
