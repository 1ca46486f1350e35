"""Balanced parentheses: how many closing parentheses come next? RASteer (arXiv:2507.00322), the main task.

Sub-task n asks for n closing parentheses as one token::

    #print the string 123
    print(str(str(123           -> )))
"""

import random

from transformers import PreTrainedTokenizerBase

from steering_profiles.errors import TaskError
from steering_profiles.models.prompts import encode_prompt
from steering_profiles.tasks.task import Example, Task, single_token

SPLIT_SIZES = {"train": 350, "dev": 150, "test": 150}
"""Prompts per sub-task, as in the paper."""
MOST_PARENTHESES = 4
_NUMBERS = range(100, 1000)

# Shapes that no fit sees: other numbers of digits, other function names. For reporting only, never for choosing.
_VARIANT_DIGITS = (2, 4, 5)
_VARIANT_FUNCTIONS = ("int", "len", "repr", "list", "foo")


def parentheses(tokenizer: PreTrainedTokenizerBase, seed: int = 0) -> Task:
    """Make the task for ``tokenizer``.

    Numbers are drawn without replacement from 100..999 for each sub-task, so that its splits share none.

    Raises:
        TaskError: fewer than two of ``)``, ``))``, ``)))``, ``))))`` are single tokens, so there is nothing to tell
        apart.
    """
    candidates, left_out = _candidates(tokenizer)
    splits: dict[str, list[Example]] = {split: [] for split in SPLIT_SIZES}
    for group, answer in candidates.items():
        numbers = random.Random(f"parentheses {seed} {group}").sample(_NUMBERS, sum(SPLIT_SIZES.values()))
        for split, size in SPLIT_SIZES.items():
            for number in numbers[:size]:
                splits[split].append(_example(tokenizer, group, answer, str(number), "str"))
            del numbers[:size]
    return Task(
        name="parentheses",
        seed=seed,
        candidates=candidates,
        left_out=left_out,
        train=tuple(splits["train"]),
        dev=tuple(splits["dev"]),
        test=tuple(splits["test"]),
    )


def parentheses_variants(
    tokenizer: PreTrainedTokenizerBase, seed: int = 0, size: int = 50
) -> dict[str, tuple[Example, ...]]:
    """Make ``size`` prompts per sub-task for each shape that no fit sees: ``5 digits``, ``len(``, ...

    They tell how far a profile generalises.
    """
    candidates, _ = _candidates(tokenizer)
    shapes = {f"{digits} digits": (digits, "str") for digits in _VARIANT_DIGITS}
    shapes |= {f"{function}(": (3, function) for function in _VARIANT_FUNCTIONS}
    variants = {}
    for name, (digits, function) in shapes.items():
        examples = []
        for group, answer in candidates.items():
            draw = random.Random(f"parentheses variant {seed} {name} {group}")
            numbers = draw.sample(range(10 ** (digits - 1), 10**digits), size)
            examples += [_example(tokenizer, group, answer, str(number), function) for number in numbers]
        variants[name] = tuple(examples)
    return variants


def _candidates(tokenizer: PreTrainedTokenizerBase) -> tuple[dict[str, int], tuple[str, ...]]:
    answers = [")" * n for n in range(1, MOST_PARENTHESES + 1)]
    tokens = {answer: single_token(tokenizer, answer) for answer in answers}
    found = {answer: token for answer, token in tokens.items() if token is not None}
    if len(found) < 2:
        raise TaskError(
            f"parentheses: this tokenizer has {len(found)} of the tokens {' '.join(answers)}; at least two are needed"
        )
    left_out = tuple(f"{answer}: not one token in this tokenizer" for answer in answers if answer not in found)
    return found, left_out


def _example(tokenizer: PreTrainedTokenizerBase, group: str, answer: int, number: str, function: str) -> Example:
    text = f"#print the string {number}\nprint({f'{function}(' * (len(group) - 1)}{number}"
    return Example(group, text, encode_prompt(tokenizer, text), answer)
