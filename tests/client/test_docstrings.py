"""The examples in the docstrings of both clients do what they show."""

import ast
import doctest
import inspect
import sys
import traceback
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import anyio
import pytest
import torch

from steering_client import AsyncSteeringClient, SteeringClient
from tests.builders import build_model, profiles_for
from tests.serving import serving


@pytest.fixture
def own_url(tmp_path: Path) -> Iterator[str]:
    """A server whose profiles the examples may change."""
    model = build_model("llama", dtype=torch.float32)
    with serving(model, tmp_path, profiles_for(model), watched=True) as url:
        yield url


def examples(client: type) -> list[doctest.Example]:
    """All examples of a client, which belong together, in the order of the source."""
    methods = sorted(inspect.getmembers(client, inspect.isfunction), key=lambda named: named[1].__code__.co_firstlineno)
    return [
        example
        for _, method in methods
        for example in doctest.DocTestParser().get_examples(inspect.getdoc(method) or "", method.__qualname__)
    ]


async def outcome(example: doctest.Example, names: dict[str, Any]) -> str:
    """Return what Python's prompt prints for an example, which may await."""
    code = compile(example.source, "<example>", "single", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    with redirect_stdout(StringIO()) as printed:
        try:
            result = eval(code, names)
            if inspect.isawaitable(result):
                await result
        except Exception as exc:
            return traceback.format_exception_only(exc)[-1]
    return printed.getvalue()


def assert_as_shown(example: doctest.Example, printed: str) -> None:
    assert printed == (example.exc_msg or example.want), example.source


def test_the_examples_of_the_sync_client(own_url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "displayhook", sys.__displayhook__)
    with SteeringClient(own_url) as client:
        names: dict[str, Any] = {"client": client}
        shown = examples(SteeringClient)
        assert shown
        for example in shown:
            assert "await" not in example.source
            assert_as_shown(example, anyio.run(outcome, example, names))


def test_the_examples_of_the_async_client(own_url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "displayhook", sys.__displayhook__)

    async def run() -> None:
        async with AsyncSteeringClient(own_url) as client:
            names: dict[str, Any] = {"client": client}
            shown = examples(AsyncSteeringClient)
            assert len(shown) == len(examples(SteeringClient)) > 0
            for example in shown:
                assert_as_shown(example, await outcome(example, names))

    anyio.run(run)
