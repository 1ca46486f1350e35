"""Prompts that are longer than the model's context are left out with a reason."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from steering_profiles.errors import TaskError
from steering_profiles.tasks import Example, Task, held_out_formats_of, make_task
from steering_profiles.tasks.context_limit import within_context
from steering_profiles.tasks.task import Pair
from tests.builders import build_tokenizer
from tests.cli.tasks import write_task

CONTEXT = 64
"""Context in tokens, which are bytes here. Prompts have 31 to 43 tokens, with a sum before them 90 or more."""


def prompts_of(task: Task) -> Iterator[Example]:
    for examples in (task.train, task.dev, task.test, *task.fit_formats.values()):
        yield from examples
    for pair in task.pairs:
        yield from (pair.clean, pair.counterfactual)


def test_every_prompt_of_a_task_fits_into_the_context():
    whole = make_task("parentheses", build_tokenizer())
    task = make_task("parentheses", build_tokenizer(), context=CONTEXT)
    assert max(len(example.prompt) for example in prompts_of(whole)) > CONTEXT
    assert max(len(example.prompt) for example in prompts_of(task)) <= CONTEXT
    assert (task.train, task.dev, task.test, task.pairs) == (whole.train, whole.dev, whole.test, whole.pairs)


def test_a_format_with_a_prompt_that_is_too_long_is_left_out_with_a_reason():
    whole = make_task("parentheses", build_tokenizer())
    longest = max(len(example.prompt) for example in whole.fit_formats["a sum before"])
    task = within_context(whole, longest - 1)
    assert task.fit_formats == {name: shape for name, shape in whole.fit_formats.items() if name != "a sum before"}
    assert task.left_out == (f"prompt format a sum before: too long for a context of {longest - 1} tokens",)


def test_held_out_formats_that_are_too_long_are_left_out():
    whole, fitting = (
        held_out_formats_of("parentheses", build_tokenizer(), context=context) for context in (None, CONTEXT)
    )
    assert whole.keys() - fitting.keys() == {"code before"}


def test_a_pair_is_left_out_if_either_of_its_prompts_is_too_long():
    whole = make_task("parentheses", build_tokenizer())
    pair = whole.pairs[0]
    long = replace(pair.clean, prompt=tuple(range(CONTEXT + 1)))
    pairs = (pair, Pair(pair.clean, long), Pair(long, pair.counterfactual))
    assert within_context(replace(whole, pairs=pairs), CONTEXT).pairs == (pair,)


def test_prompts_of_a_file_that_are_too_long_are_left_out_and_counted(tmp_path: Path):
    path = str(write_task(tmp_path / "parity.jsonl"))
    whole = make_task(path, build_tokenizer())
    # "9 is odd: " is one token shorter than "10 is odd: "
    task = within_context(whole, min(len(example.prompt) for example in whole.train))
    gone = len(whole.train) - len(task.train)
    assert 0 < gone < len(whole.train)
    assert any(reason.startswith(f"{gone} of {len(whole.train)} train prompts: longer") for reason in task.left_out)


def test_a_task_that_loses_a_whole_group_is_rejected():
    with pytest.raises(TaskError, match=r"every train prompt of \)\)\)\) is longer than the model's context of 42"):
        make_task("parentheses", build_tokenizer(), context=42)
