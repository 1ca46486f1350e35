"""The arithmetic task with whole answers: the same prompts and answers for every tokenizer."""

import json
from collections import Counter
from pathlib import Path

import pytest

from steering_profiles.errors import TaskError
from steering_profiles.models import LoadedModel
from steering_profiles.tasks import arithmetic, jsonl_task, make_task
from tests.builders import build_sentencepiece_tokenizer
from tests.fitting.test_arithmetic import (
    NUMBERS,
    TOKENIZERS,
    build_number_tokenizer,
    examples_of,
    operands,
    result,
    without_the_space,
)


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_the_tokens_of_prompt_and_answer_are_those_of_one_text(kind: str):
    tokenizer = TOKENIZERS[kind]()
    for example in examples_of(make_task("arithmetic-whole", tokenizer))[::7]:
        space = "" if example.text.endswith(" ") else " "
        whole = tokenizer.encode(f"{example.text}{space}{result(example)}")
        assert tuple(whole) == (*example.prompt, *example.whole_answer)
        assert example.ends_with == str(result(example))[-1]
        assert example.scored_tokens == tuple(whole)


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_no_tokenizer_leaves_an_answer_or_a_prompt_out(kind: str):
    task = arithmetic(TOKENIZERS[kind](), whole=True)
    assert (task.name, task.groups, task.left_out) == ("arithmetic-whole", ("+", "-", "x", "/"), ())
    assert task.split_sizes == {"train": 750, "dev": 350, "test": 350}
    counts = Counter((operands(example)[1], result(example)) for example in examples_of(task))
    assert max(counts.values()) == 1, "no answer is asked for twice with the same operator"
    assert sum(number > 9 for _, number in counts) > 0.95 * len(counts)


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_the_calculations_are_those_of_the_papers_task_with_a_token_for_every_number(kind: str):
    paper = {operands(example) for example in examples_of(arithmetic(without_the_space(), 3))}
    assert {operands(example) for example in examples_of(arithmetic(TOKENIZERS[kind](), 3, whole=True))} == paper


def test_a_tokenizer_of_digits_asks_for_one_token_per_digit():
    for example in examples_of(arithmetic(TOKENIZERS["digits"](), whole=True)):
        assert example.text.endswith("= ")
        assert len(example.whole_answer) == len(str(result(example)))


def test_numbers_with_their_space_are_asked_for_after_the_equals_sign():
    for example in examples_of(arithmetic(TOKENIZERS["spaced"](), whole=True)):
        assert example.text.endswith("=")
        assert example.rest == ()


def test_the_paper_s_task_says_where_whole_answers_are_asked_for():
    assert any(
        "arithmetic-whole asks for whole answers" in said for said in arithmetic(TOKENIZERS["digits"]()).left_out
    )


def test_answers_unknown_to_the_tokenizer_are_left_out_and_counted():
    task = arithmetic(build_number_tokenizer(r" ?\d+| ?[^\s\d]| ", [*NUMBERS, " 3", " 4"]), whole=True)
    assert {result(example) for example in examples_of(task)} == {3, 4}
    assert "499 of the 501 answers 0..500: unknown to this tokenizer after a prompt" in task.left_out


def test_a_tokenizer_without_numbers_is_rejected():
    with pytest.raises(TaskError, match="arithmetic-whole: no operator can be used with this tokenizer: 501 of the"):
        arithmetic(build_number_tokenizer(r"\S+| ", []), whole=True)


def test_the_default_models_tokenizer_asks_for_all_of_it(embedded: LoadedModel):
    task = make_task("arithmetic-whole", embedded.tokenizer)
    assert task.left_out == ()
    for example in task.test[::5]:
        assert embedded.tokenizer.decode(example.whole_answer) == str(result(example))


def written(path: Path, **fields: object) -> Path:
    lines = [{"prompt": f"no. {number} is", "answer": " hot", **fields} for number in range(20)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_line_of_a_file_can_ask_for_its_whole_answer(tmp_path: Path):
    tokenizer = TOKENIZERS["digits"]()
    task = jsonl_task(written(tmp_path / "whole.jsonl", whole=True), tokenizer)
    assert task.left_out == ()
    for example in examples_of(task):
        assert tokenizer.decode([*example.prompt, *example.whole_answer]) == f"{example.text} hot"
        assert example.ends_with == "t"
        assert len(example.rest) == 3


def test_candidates_of_whole_answers_name_sub_tasks_and_are_no_tokens(tmp_path: Path):
    lines = [
        {"prompt": f"no. {n} is", "answer": (" hot", " cold")[n % 2], "candidates": [" hot", " cold"], "whole": True}
        for n in range(40)
    ]
    path = tmp_path / "both.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    task = jsonl_task(path, TOKENIZERS["digits"]())
    assert (task.groups, task.answers, task.left_out) == ((" hot", " cold"), {}, ())
    assert {example.candidates for example in examples_of(task)} == {()}


UNUSABLE = {
    "one token only": ({"whole": False}, 'it must be one, or the line must have "whole": true'),
    "no truth value": ({"whole": "yes"}, "whole: Input should be a valid boolean"),
    "a long answer": ({"whole": True, "answer": "x" * 65}, "is 65 tokens in this tokenizer; at most 64 are allowed"),
    "a candidate twice": (
        {"whole": True, "candidates": [" hot", " hot"]},
        "candidates ' hot' and ' hot' are the same tokens",
    ),
}


@pytest.mark.parametrize("fault", UNUSABLE)
def test_a_line_whose_whole_answer_cannot_be_used_says_why(tmp_path: Path, fault: str):
    fields, reason = UNUSABLE[fault]
    with pytest.raises(TaskError) as raised:
        jsonl_task(written(tmp_path / "mine.jsonl", **fields), TOKENIZERS["digits"]())
    assert reason in str(raised.value)


def test_a_whole_answer_that_would_do_without_the_prompts_space_says_so(tmp_path: Path):
    path = written(tmp_path / "mine.jsonl", whole=True, answer="the")
    path.write_text(path.read_text().replace(" is", " is "))
    with pytest.raises(TaskError, match=r"merges with .*without the space at the prompt's end ' the' would work"):
        jsonl_task(path, build_sentencepiece_tokenizer())
