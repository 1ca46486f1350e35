"""Balanced parentheses, the main task of RASteer (arXiv:2507.00322): predict the closing parentheses.

The answer of sub-task n is n closing parentheses as one token::

    #print the string 123
    print(str(str(123           -> )))

Prompts in other formats (other functions, numbers and brackets, code before the prompt) show how far a profile
generalises. Fits use some of these formats; the others are held out.
"""

import random
from collections.abc import Mapping
from typing import TYPE_CHECKING

from steering_profiles.conditions import Condition
from steering_profiles.errors import TaskError
from steering_profiles.tasks.bracket_formats import (
    AS_IN_THE_PAPER,
    CHOOSING_FORMATS,
    FITTING_FORMATS,
    HELD_OUT_FORMATS,
    BracketFormat,
)
from steering_profiles.tasks.task import Example, Pair, Task, single_token
from steering_profiles.tokenization import encode_prompt, encode_prompts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SPLIT_SIZES = {"train": 350, "dev": 150, "test": 150}
"""Prompts per sub-task, as in the paper."""
_PAIRS = 32
"""Counterfactual prompts per sub-task; more hardly change the mean effect of patching."""
_FIT_FORMAT_SIZE = 25
"""Prompts per sub-task in each fitting format."""
_CHOOSING_SIZE = 40
"""Prompts per sub-task in each choosing format, so that a loss of 2.5 percentage points is seen."""

_INSIDE = r"[^()\[\]{}\n]*"
CONDITIONS = (
    Condition(matches=rf"^(.*\n)*[ \t]*[\w.:]+(\([\w.:]+){{2,}}\({_INSIDE}"),
    Condition(matches=rf"([(\[{{]{_INSIDE}){{4}}"),
)
"""Conditions that a fit may choose: a line begins with at least three open calls, one directly inside the other, as in
almost all prompts that move scales; or four brackets of any kind are open, on any line."""


def parentheses(tokenizer: "PreTrainedTokenizerBase", seed: int = 0) -> Task:
    """Make the task for ``tokenizer``.

    Numbers are drawn without replacement from 100..999 for each sub-task, so that its splits share no number.

    Raises:
        TaskError: fewer than two of ``)``, ``))``, ``)))``, ``))))`` are single tokens.
    """
    answers = _tokens(tokenizer, AS_IN_THE_PAPER)
    known = {group: token for group, token in answers.items() if token is not None}
    if len(known) < 2:
        raise TaskError(
            f"parentheses: this tokenizer has {len(known)} of the tokens {' '.join(answers)}; at least two are needed"
        )
    splits: dict[str, list[Example]] = {split: [] for split in SPLIT_SIZES}
    for group in known:
        numbers = random.Random(f"parentheses {seed} {group}").sample(range(100, 1000), sum(SPLIT_SIZES.values()))
        for split, size in SPLIT_SIZES.items():
            splits[split] += _examples(tokenizer, AS_IN_THE_PAPER, known, group, numbers[:size])
            del numbers[:size]
    return Task(
        name="parentheses",
        seed=seed,
        groups=tuple(known),
        train=tuple(splits["train"]),
        dev=tuple(splits["dev"]),
        test=tuple(splits["test"]),
        left_out=tuple(f"{group}: not a single token in this tokenizer" for group in answers if group not in known),
        fit_formats=_in_formats(tokenizer, FITTING_FORMATS, f"parentheses shape {seed}", _FIT_FORMAT_SIZE),
        choosing_formats=_in_formats(tokenizer, CHOOSING_FORMATS, f"parentheses choice {seed}", _CHOOSING_SIZE),
        conditions=CONDITIONS,
        pairs=_pairs(tokenizer, known, splits["train"]),
    )


def every_parentheses(tokenizer: "PreTrainedTokenizerBase") -> tuple[Example, ...]:
    """Make all prompts in the paper's format, with all 900 three-digit numbers, including those used in fits."""
    answers = _tokens(tokenizer, AS_IN_THE_PAPER)
    known = {group: token for group, token in answers.items() if token is not None}
    numbers = list(range(100, 1000))
    return tuple(example for group in known for example in _examples(tokenizer, AS_IN_THE_PAPER, known, group, numbers))


def parentheses_held_out_formats(
    tokenizer: "PreTrainedTokenizerBase", seed: int = 0, size: int = 50
) -> dict[str, tuple[Example, ...]]:
    """Make ``size`` prompts per sub-task for each held-out format: ``5 digits``, ``len(``, ...

    A format is left out if fewer than two of its answers are single tokens.
    """
    return _in_formats(tokenizer, HELD_OUT_FORMATS, f"parentheses variant {seed}", size)


def _pairs(tokenizer: "PreTrainedTokenizerBase", known: Mapping[str, int], train: list[Example]) -> tuple[Pair, ...]:
    """Pair each group's first prompts with prompts that have one more open parenthesis around the number."""
    pairs = []
    for group in known:
        for clean in [example for example in train if example.group == group][:_PAIRS]:
            head, _, number = clean.text.rpartition("(")
            text = f"{head}(({number}"
            if f"{group})" in known:
                counterfactual = Example(
                    f"{group})", text, encode_prompt(tokenizer, text), known[f"{group})"], clean.candidates
                )
                pairs.append(Pair(clean, counterfactual))
    return tuple(pairs)


def _in_formats(
    tokenizer: "PreTrainedTokenizerBase", formats: Mapping[str, BracketFormat], seed: str, size: int
) -> dict[str, tuple[Example, ...]]:
    made: dict[str, tuple[Example, ...]] = {}
    for name, prompt_format in formats.items():
        known = {group: token for group, token in _tokens(tokenizer, prompt_format).items() if token is not None}
        examples: list[Example] = []
        for group in (group for group in known if len(group) >= prompt_format.least):
            draw = random.Random(f"{seed} {name} {group}")
            numbers = draw.sample(range(10 ** (prompt_format.digits - 1), 10**prompt_format.digits), size)
            examples += _examples(tokenizer, prompt_format, known, group, numbers)
        if len(known) >= 2:
            made[name] = tuple(examples)
    return made


def _tokens(tokenizer: "PreTrainedTokenizerBase", prompt_format: BracketFormat) -> dict[str, int | None]:
    return {group: single_token(tokenizer, text) for group, text in prompt_format.answers().items()}


def _examples(
    tokenizer: "PreTrainedTokenizerBase",
    prompt_format: BracketFormat,
    known: Mapping[str, int],
    group: str,
    numbers: list[int],
) -> list[Example]:
    texts = [prompt_format.prompt(len(group), str(number)) for number in numbers]
    candidates = tuple(known.values())
    prompts = encode_prompts(tokenizer, texts)
    return [Example(group, text, prompt, known[group], candidates) for text, prompt in zip(texts, prompts, strict=True)]
