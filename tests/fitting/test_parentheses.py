"""The parentheses task, compared with the paper."""

import re
from collections.abc import Mapping, Sequence

import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from steering_profiles.conditions import ConditionTrace
from steering_profiles.errors import TaskError
from steering_profiles.tasks import Example, parentheses, parentheses_held_out_formats
from steering_profiles.tasks.bracket_formats import CHOOSING_FORMATS, FITTING_FORMATS, HELD_OUT_FORMATS, BracketFormat
from steering_profiles.tokenization import Vocabulary
from tests.builders import build_tokenizer


def find(examples: Sequence[Example], group: str) -> str:
    """Return the text of a prompt of this group."""
    return next(example.text for example in examples if example.group == group)


def test_each_sub_task_has_350_train_150_dev_and_150_test_prompts():
    task = parentheses(build_tokenizer())
    assert task.groups == (")", "))", ")))", "))))")
    for split, size in ((task.train, 350), (task.dev, 150), (task.test, 150)):
        assert [sum(example.group == group for example in split) for group in task.groups] == [size] * 4


def test_prompts_are_the_papers():
    task = parentheses(build_tokenizer())
    example = next(example for example in task.test if example.group == ")))")
    number = example.text.split()[3]
    assert example.text == f"#print the string {number}\nprint(str(str({number}"


def test_the_answer_is_one_token_and_prompts_are_tokenised_like_served_ones():
    tokenizer = build_tokenizer()
    for example in parentheses(tokenizer).test[::100]:
        assert tokenizer.decode([example.answer]) == example.group
        assert list(example.prompt) == tokenizer.encode(example.text)


def test_no_prompt_is_in_two_splits():
    task = parentheses(build_tokenizer(), seed=3)
    splits = [{example.text for example in split} for split in (task.train, task.dev, task.test)]
    assert [len(split) for split in splits] == [1400, 600, 600]
    assert len(set.union(*splits)) == 2600


def test_the_prompts_depend_on_the_seed():
    tokenizer = build_tokenizer()
    assert parentheses(tokenizer, 1) == parentheses(tokenizer, 1)
    assert parentheses(tokenizer, 1).test != parentheses(tokenizer, 2).test


def test_the_task_has_fitting_formats():
    tokenizer = build_tokenizer()
    task = parentheses(tokenizer)
    assert {"2 digits", "7 digits", "int(", "set(", "bar(", "a sum before", "a value of f", "Lisp write"} <= set(
        task.fit_formats
    )
    for name, examples in task.fit_formats.items():
        ones = 0 if name.endswith("(") else 25  # one bracket means no function call
        assert [sum(example.group == group for example in examples) for group in task.groups] == [ones, 25, 25, 25]
    assert re.fullmatch(r"#print the string \d\d\nprint\(str\(\d\d", find(task.fit_formats["2 digits"], "))"))
    assert re.fullmatch(r"#print the string (\d{3})\nprint\(set\(set\(\1", find(task.fit_formats["set("], ")))"))


def test_held_out_formats_have_longer_numbers_other_functions_and_code_before():
    held_out = parentheses_held_out_formats(build_tokenizer(), size=10)
    assert {name: len(examples) for name, examples in held_out.items()} == {
        name: 20 if name == "unlike names" else 30 if name.endswith("(") else 40 for name in held_out
    }
    assert len(held_out) >= 30
    for digits in (4, 5, 6):
        number = rf"(\d{{{digits}}})"
        assert re.fullmatch(rf"#print the string {number}\nprint\(str\(\1", find(held_out[f"{digits} digits"], "))"))
    for function in ("len", "repr", "list", "max", "sorted", "foo"):
        prompt = rf"#print the string (\d{{3}})\nprint\({function}\({function}\(\1"
        assert re.fullmatch(prompt, find(held_out[f"{function}("], ")))"))
    before, prompt = find(held_out["code before"], "))").split("#print")
    compile(before, "code before", "exec")
    assert re.fullmatch(r" the string (\d{3})\nprint\(str\(\1", prompt)


@pytest.mark.parametrize("pair", ["[]", "{}"])
def test_other_brackets_are_a_held_out_format_if_the_tokenizer_has_tokens_for_them(pair: str):
    opening, closing = pair
    name = f"brackets {opening}"
    tokenizer = build_tokenizer()
    assert name not in parentheses_held_out_formats(tokenizer)  # a single answer is not enough
    tokenizer.add_tokens([closing * 2, closing * 3])
    examples = parentheses_held_out_formats(tokenizer)[name]
    assert {example.group for example in examples} == {")", "))", ")))"}  # groups are named like those of the task
    for example in examples:
        assert tokenizer.decode([example.answer]) == closing * len(example.group)
        number = re.escape(opening * len(example.group)) + r"\1"
        assert re.fullmatch(rf"#nest the number (\d{{3}})\nx = {number}", example.text)
    assert [tokenizer.decode([token]) for token in examples[0].candidates] == [closing, closing * 2, closing * 3]


def test_the_candidates_are_the_answers_of_all_sub_tasks():
    tokenizer = build_tokenizer(closers=3)
    task = parentheses(tokenizer)
    sets = [
        task.train,
        task.dev,
        task.test,
        *task.fit_formats.values(),
        *parentheses_held_out_formats(tokenizer).values(),
    ]
    for example in (example for examples in sets for example in examples):
        assert example.answer in example.candidates
        assert [tokenizer.decode([token]) for token in example.candidates] == [")", "))", ")))"]
    assert task.answers == dict(zip(task.groups, task.train[0].candidates, strict=True))


def test_splits_and_formats_share_no_prompt():
    tokenizer = build_tokenizer()
    tokenizer.add_tokens(["]]", "]]]", "]]]]", "}}", "}}}", "}}}}"])
    task = parentheses(tokenizer)
    sets = [
        task.train,
        task.dev,
        task.test,
        *task.fit_formats.values(),
        *task.choosing_formats.values(),
        *parentheses_held_out_formats(tokenizer).values(),
    ]
    assert len(sets) == 3 + 12 + 36 + 34
    texts = [[example.text for example in examples] for examples in sets]
    assert sum(map(len, texts)) == len({text for examples in texts for text in examples})


def test_held_out_formats_are_written_with_names_and_operators_of_no_other_list():
    def inside(formats: Mapping[str, BracketFormat]) -> set[str]:
        return {opening for one in formats.values() for opening in one.openings[1:]}

    assert inside(HELD_OUT_FORMATS) & inside(FITTING_FORMATS | CHOOSING_FORMATS) == {"str(", "["}


def test_every_format_closes_the_brackets_that_it_opens():
    """Counted with a stack, over prompts in three languages' comments, calls, arguments and operators."""
    tokenizer = build_tokenizer()
    tokenizer.add_tokens(["]]", "]]]", "]]]]", "}}", "}}}", "}}}}"])
    task = parentheses(tokenizer)
    formats = {**task.fit_formats, **task.choosing_formats, **parentheses_held_out_formats(tokenizer, size=3)}
    pairs = {"(": ")", "[": "]", "{": "}"}
    for name, examples in formats.items():
        for example in examples:
            open_: list[str] = []
            for character in example.text:
                if character in pairs:
                    open_.append(pairs[character])
                elif open_ and character == open_[-1]:
                    open_.pop()
            assert tokenizer.decode([example.answer]) == "".join(reversed(open_)), (name, example.text)
            assert len(open_) == len(example.group)


def calls_open(example: Example) -> int:
    """Count the open calls of a line that begins with them, one directly inside the other; 0 for another line."""
    *names, _ = example.text.rpartition("\n")[2].lstrip(" \t").split("(")
    return len(names) if all(re.fullmatch(r"[\w.:]+", name) for name in names) else 0


def test_the_conditions_hold_where_so_many_calls_or_brackets_are_open():
    tokenizer = build_tokenizer()
    task = parentheses(tokenizer)
    assert len(task.conditions) == 2
    bytes_of = Vocabulary(tokenizer).bytes_of
    formats = [*task.choosing_formats.values(), *parentheses_held_out_formats(tokenizer, size=2).values()]
    seen = set()
    for example in (example for examples in formats for example in examples):
        trace = ConditionTrace(task.conditions, bytes_of, len(example.prompt))
        (held,) = trace.held(example.prompt, len(example.prompt) - 1, len(example.prompt))
        depth, calls = len(example.group), calls_open(example)
        assert [bool(held >> i & 1) for i in range(2)] == [calls >= 3, depth >= 4], example.text
        seen.add((depth, calls))
    assert seen == {(depth, calls) for depth in (1, 2, 3, 4) for calls in (0, depth)}


def test_a_sub_task_whose_answer_is_not_one_token_is_left_out_with_the_reason():
    task = parentheses(build_tokenizer(closers=3))
    assert task.groups == (")", "))", ")))")
    assert task.left_out == (")))): not a single token in this tokenizer",)


@pytest.mark.parametrize("tokens", [[], [")"]])
def test_a_tokenizer_with_fewer_than_two_of_the_tokens_is_rejected(tokens: list[str]):
    vocabulary = {token: index for index, token in enumerate(["?", *tokens])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    with pytest.raises(TaskError, match=f"has {len(tokens)} of the tokens"):
        parentheses(PreTrainedTokenizerFast(tokenizer_object=words, unk_token="?"))
