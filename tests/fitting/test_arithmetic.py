"""The arithmetic task with different tokenizers."""

from collections import Counter
from fractions import Fraction

import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from steering_profiles.errors import TaskError
from steering_profiles.tasks import Example, Task, arithmetic
from tests.builders import build_tokenizer

OPERATORS = {"+": Fraction.__add__, "-": Fraction.__sub__, "x": Fraction.__mul__, "/": Fraction.__truediv__}


def build_number_tokenizer(pattern: str, words: list[str]) -> PreTrainedTokenizerFast:
    """Build a tokenizer that splits text by ``pattern`` and has tokens for ``words``, operators and ``=``."""
    known = ["?", " ", "=", " =", *OPERATORS, *(f" {operator}" for operator in OPERATORS), *words]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(known)}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="?")


NUMBERS = [str(number) for number in range(501)]
SPACED = [f" {number}" for number in NUMBERS]


def with_the_space() -> PreTrainedTokenizerFast:
    """Like GPT-2's: a number is one token with the space before it."""
    return build_number_tokenizer(r" ?\d+| ?[^\s\d]| ", NUMBERS + SPACED)


def without_the_space() -> PreTrainedTokenizerFast:
    """Like Llama 3's: a number is one token, the space before it another."""
    return build_number_tokenizer(r"\d+| ?[^\s\d]| ", NUMBERS)


TOKENIZERS = {"digits": build_tokenizer, "spaced": with_the_space, "unspaced": without_the_space}


def examples_of(task: Task) -> list[Example]:
    return [*task.train, *task.dev, *task.test]


def operands(example: Example) -> tuple[int, str, int]:
    a, operator, b, equals = example.text.split()
    assert equals == "="
    return int(a), operator, int(b)


def result(example: Example) -> Fraction:
    a, operator, b = operands(example)
    return OPERATORS[operator](Fraction(a), Fraction(b))


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_answers_are_correct_and_numbers_are_in_range(kind: str):
    tokenizer = TOKENIZERS[kind]()
    for example in examples_of(arithmetic(tokenizer)):
        a, operator, b = operands(example)
        assert operator == example.group
        assert int(tokenizer.decode([example.answer])) == result(example)
        assert all(0 <= number <= 500 for number in (a, b, result(example)))


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_the_answer_token_is_that_of_prompt_and_answer_tokenised_as_one_text(kind: str):
    tokenizer = TOKENIZERS[kind]()
    for example in examples_of(arithmetic(tokenizer))[::20]:
        space = "" if example.text.endswith(" ") else " "
        whole = tokenizer.encode(f"{example.text}{space}{result(example)}")
        assert tuple(tokenizer.encode(example.text)) == example.prompt
        assert tuple(whole) == (*example.prompt, example.answer)


@pytest.mark.parametrize(("kind", "ending"), [("digits", "= "), ("spaced", "="), ("unspaced", "= ")])
def test_the_prompt_ends_with_a_space_if_answers_are_tokens_without_one(kind: str, ending: str):
    for example in examples_of(arithmetic(TOKENIZERS[kind]())):
        assert example.text == "{} {} {} ".format(*operands(example)) + ending


@pytest.mark.parametrize("kind", ["spaced", "unspaced"])
def test_splits_of_750_350_and_350_prompts_are_shared_evenly_by_the_operators(kind: str):
    task = arithmetic(TOKENIZERS[kind]())
    assert task.groups == ("+", "-", "x", "/")
    assert task.left_out == ()
    assert task.split_sizes == {"train": 750, "dev": 350, "test": 350}
    for split in (task.train, task.dev, task.test):
        counts = Counter(example.group for example in split)
        assert max(counts.values()) - min(counts.values()) <= 1


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_every_prompt_is_used_once(kind: str):
    texts = [example.text for example in examples_of(arithmetic(TOKENIZERS[kind](), seed=3))]
    assert len(set(texts)) == len(texts)


def test_the_prompts_depend_on_the_seed():
    tokenizer = with_the_space()
    assert arithmetic(tokenizer, 1) == arithmetic(tokenizer, 1)
    assert arithmetic(tokenizer, 1).test != arithmetic(tokenizer, 2).test


def test_prompts_have_no_candidates():
    task = arithmetic(build_tokenizer())
    assert all(example.candidates == () for example in examples_of(task))
    assert task.answers == {}


def test_a_tokenizer_that_splits_numbers_into_digits_leaves_the_answers_0_to_9_and_a_reason():
    tokenizer = build_tokenizer()
    task = arithmetic(tokenizer)
    for operator in task.groups:
        answers = {tokenizer.decode([e.answer]) for e in examples_of(task) if e.group == operator}
        assert answers == set("0123456789")
    assert any("491 of the 501 answers" in said and "splits numbers into digits" in said for said in task.left_out)


def test_all_prompts_of_an_operator_with_too_few_are_used_in_the_same_proportion():
    task = arithmetic(build_tokenizer())
    sums = [[e.text for e in split if e.group == "+"] for split in (task.train, task.dev, task.test)]
    assert {text for split in sums for text in split} == {f"{a} + {b} = " for a in range(10) for b in range(10 - a)}
    assert [len(split) for split in sums] == [29, 13, 13]
    assert any(
        said.startswith("+: 309 of 364 prompts are missing; 55 (split into 29 / 13 / 13) are used")
        for said in task.left_out
    )


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_no_answer_exceeds_its_even_share(kind: str):
    tokenizer = TOKENIZERS[kind]()
    task = arithmetic(tokenizer)
    possible = 10 if kind == "digits" else 501
    for operator in task.groups:
        counts = Counter(e.answer for e in examples_of(task) if e.group == operator)
        assert max(counts.values()) <= -(-364 // possible)


def test_all_of_a_few_nonzero_products_are_used_and_spread_over_the_splits():
    task = arithmetic(build_tokenizer())
    products = [[result(e) for e in split if e.group == "x"] for split in (task.train, task.dev, task.test)]
    assert sum(product != 0 for split in products for product in split) == 23  # 1x1 .. 9x1 with a product up to 9
    for split in products:
        assert sum(product != 0 for product in split) / len(split) == pytest.approx(23 / 60, abs=0.08)


@pytest.mark.parametrize("operator", ["-", "/"])
def test_each_answer_is_spread_over_the_splits_in_proportion(operator: str):
    task = arithmetic(build_tokenizer())
    counts = [Counter(e.answer for e in split if e.group == operator) for split in (task.train, task.dev, task.test)]
    for answer in counts[0]:
        asked = sum(split[answer] for split in counts)
        assert [split[answer] for split in counts] == pytest.approx([asked * share / 29 for share in (15, 7, 7)], abs=2)


def test_prompts_that_the_tokenizer_merges_with_the_answer_are_left_out_and_counted():
    # " 9 =" is one token where something follows, two where nothing does
    tokenizer = build_number_tokenizer(r" 9 =(?= )| ?\d+| ?[^\s\d]| ", [*NUMBERS, *SPACED, " 9 ="])
    task = arithmetic(tokenizer)
    assert 9 not in {operands(example)[2] for example in examples_of(task)}
    assert task.split_sizes == {"train": 750, "dev": 350, "test": 350}
    assert any("not a single token after the prompt" in said for said in task.left_out)


def test_an_operator_with_far_too_few_prompts_is_left_out():
    tokenizer = build_number_tokenizer(r" ?\d+| ?[^\s\d]| ", [*NUMBERS, " 3"])
    task = arithmetic(tokenizer)  # 3 is the sum of four pairs only
    assert task.groups == ("-", "/")
    assert "+: only 4 prompts can be made; at least 12 are needed" in task.left_out
    assert any(said.startswith("500 of the 501 answers 0..500") for said in task.left_out)


def test_a_tokenizer_without_a_usable_operator_is_rejected():
    with pytest.raises(TaskError, match="no operator can be used with this tokenizer: 501 of the 501 answers"):
        arithmetic(build_number_tokenizer(r"\S+| ", []))
