"""The parentheses task: what the paper says it is."""

import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from steering_profiles.errors import TaskError
from steering_profiles.tasks import parentheses, parentheses_variants
from tests.builders import build_tokenizer


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


def test_the_answer_is_one_token_and_the_prompt_is_tokenised_as_served():
    tokenizer = build_tokenizer()
    for example in parentheses(tokenizer).test[::100]:
        assert tokenizer.decode([example.answer]) == example.group
        assert list(example.prompt) == tokenizer.encode(example.text)


def test_no_prompt_is_in_two_splits():
    task = parentheses(build_tokenizer(), seed=3)
    splits = [{example.text for example in split} for split in (task.train, task.dev, task.test)]
    assert [len(split) for split in splits] == [1400, 600, 600]
    assert len(set.union(*splits)) == 2600


def test_the_seed_decides_the_prompts():
    tokenizer = build_tokenizer()
    assert parentheses(tokenizer, 1) == parentheses(tokenizer, 1)
    assert parentheses(tokenizer, 1).test != parentheses(tokenizer, 2).test


def test_no_variant_prompt_is_one_that_a_fit_sees():
    tokenizer = build_tokenizer()
    task = parentheses(tokenizer)
    seen = {example.text for example in (*task.train, *task.dev, *task.test)}
    variants = parentheses_variants(tokenizer)
    assert {"2 digits", "5 digits", "len(", "list("} <= set(variants)
    # One closing parenthesis has no function name before it, so its variants differ in the number alone.
    told_apart = [e for examples in variants.values() for e in examples if len(e.group) > 1]
    assert not seen & {example.text for example in told_apart}


def test_a_sub_task_whose_answer_is_not_one_token_is_left_out_and_said_so():
    task = parentheses(build_tokenizer(closers=3))
    assert task.groups == (")", "))", ")))")
    assert task.left_out == (")))): not one token in this tokenizer",)


@pytest.mark.parametrize("tokens", [[], [")"]])
def test_a_tokenizer_with_fewer_than_two_of_the_tokens_is_refused(tokens: list[str]):
    vocabulary = {token: index for index, token in enumerate(["?", *tokens])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    with pytest.raises(TaskError, match=f"has {len(tokens)} of the tokens"):
        parentheses(PreTrainedTokenizerFast(tokenizer_object=words, unk_token="?"))
