"""Arithmetic: what is the sum, difference, product or quotient? RASteer (arXiv:2507.00322), the second task.

Each operator is a group::

    7 + 12 =            -> 19
    91 / 13 =           -> 7

Operands and answers are whole numbers from 0 to 500, and the answer is one token. Where a tokenizer writes a number
and the space before it as one token, the prompt ends with ``=``; where it splits them, with the space. One that also
splits numbers into digits leaves the answers 0 to 9.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from steering_profiles.errors import TaskError
from steering_profiles.tasks.continuation import token_after
from steering_profiles.tasks.task import Example, Task
from steering_profiles.tokenization import encode_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

OPERATORS = ("+", "-", "x", "/")
LARGEST = 500
"""Operands and answers are whole numbers from 0 to this."""
SPLIT_SIZES = {"train": 750, "dev": 350, "test": 350}
"""Prompts over all operators, as in the paper."""
FEWEST = 12
"""An operator with fewer prompts than this is left out: its splits could say nothing."""


@dataclass(frozen=True)
class _Spelling:
    """How a prompt ends and an answer begins."""

    ending: str
    space: str

    def prompt(self, a: int, operator: str, b: int) -> str:
        return f"{a} {operator} {b}{self.ending}"


_SPELLINGS = (_Spelling(" =", " "), _Spelling(" = ", ""))


@dataclass(frozen=True)
class _Drawn:
    """The prompts of one operator."""

    examples: tuple[Example, ...]
    possible: int
    """How many pairs of operands there are with these answers."""
    unusable: int
    """How many were met whose answer is not one token after the prompt."""


def arithmetic(tokenizer: "PreTrainedTokenizerBase", seed: int = 0) -> Task:
    """Make the task for ``tokenizer``.

    The splits are shared as evenly between the operators as can be, and no prompt is in two of them. Within an
    operator no answer has more than its even share of the prompts, whatever the split: most of the pairs of operands
    whose product is small have a product of 0. An operator that has too few prompts for its share gets what there is,
    split in the same proportion.

    Raises:
        TaskError: no operator can be used with this tokenizer.
    """
    spelling, tokens = _spelling(tokenizer)
    left_out = _unusable_answers(tokens)
    wanted = dict(zip(OPERATORS, _even_shares(), strict=True))
    splits: dict[str, list[Example]] = {split: [] for split in SPLIT_SIZES}
    groups = []
    for operator in OPERATORS if tokens else ():
        draw = random.Random(f"arithmetic {seed} {operator}")
        size = sum(wanted[operator].values())
        drawn = _draw(tokenizer, spelling, operator, tokens, size, draw)
        sizes = wanted[operator] if len(drawn.examples) == size else _in_proportion(len(drawn.examples))
        left_out += _shortcomings(operator, drawn, size, sizes)
        if len(drawn.examples) < FEWEST:
            continue
        groups.append(operator)
        for split, examples in _deal(drawn.examples, sizes, draw).items():
            splits[split] += examples
    if not groups:
        raise TaskError(f"arithmetic: no operator can be used with this tokenizer: {'; '.join(left_out)}")
    return Task(
        name="arithmetic",
        seed=seed,
        groups=tuple(groups),
        train=tuple(splits["train"]),
        dev=tuple(splits["dev"]),
        test=tuple(splits["test"]),
        left_out=tuple(left_out),
    )


def _spelling(tokenizer: "PreTrainedTokenizerBase") -> tuple[_Spelling, dict[int, int]]:
    """Return the spelling under which more answers are one token, and those with their tokens."""
    known: dict[_Spelling, dict[int, int]] = {}
    for spelling in _SPELLINGS:
        text = spelling.prompt(1, "+", 1)
        prompt = encode_prompt(tokenizer, text)
        found = {n: token_after(tokenizer, text, prompt, f"{spelling.space}{n}") for n in range(LARGEST + 1)}
        known[spelling] = {answer: token for answer, token in found.items() if token is not None}
    best = max(_SPELLINGS, key=lambda spelling: len(known[spelling]))
    return best, known[best]


def _pairs(operator: str, answer: int) -> list[tuple[int, int]]:
    """Return every pair of operands of which ``operator`` makes ``answer``, exactly and without dividing by zero."""
    if operator == "+":
        return [(a, answer - a) for a in range(answer + 1)]
    if operator == "-":
        return [(answer + b, b) for b in range(LARGEST - answer + 1)]
    if operator == "/":
        return [(answer * b, b) for b in range(1, LARGEST // max(answer, 1) + 1)]
    if answer == 0:
        return [(0, b) for b in range(LARGEST + 1)] + [(a, 0) for a in range(1, LARGEST + 1)]
    return [(a, answer // a) for a in range(1, answer + 1) if answer % a == 0]


def _draw(
    tokenizer: "PreTrainedTokenizerBase",
    spelling: _Spelling,
    operator: str,
    tokens: Mapping[int, int],
    size: int,
    draw: random.Random,
) -> _Drawn:
    """Draw up to ``size`` prompts: one for each answer in turn, until no answer may have another."""
    answers = list(tokens)
    draw.shuffle(answers)
    pairs = {answer: _pairs(operator, answer) for answer in answers}
    for answer in answers:
        draw.shuffle(pairs[answer])
    tried = {answer: _try(tokenizer, spelling, operator, tokens[answer], answer, pairs[answer]) for answer in answers}
    examples: list[Example] = []
    unusable = 0
    share = -(-size // len(answers))
    for answer in answers * share:
        if len(examples) == size:
            break
        for example in tried[answer]:  # goes on where it stopped
            if example is not None:
                examples.append(example)
                break
            unusable += 1
    return _Drawn(tuple(examples), sum(map(len, pairs.values())), unusable)


def _try(
    tokenizer: "PreTrainedTokenizerBase",
    spelling: _Spelling,
    operator: str,
    token: int,
    answer: int,
    pairs: Sequence[tuple[int, int]],
) -> Iterator[Example | None]:
    """Yield the prompt of each pair; None where its answer would not be ``token``."""
    for a, b in pairs:
        text = spelling.prompt(a, operator, b)
        prompt = encode_prompt(tokenizer, text)
        if token_after(tokenizer, text, prompt, f"{spelling.space}{answer}") == token:
            yield Example(operator, text, prompt, token)
        else:
            yield None


def _even_shares() -> list[dict[str, int]]:
    """Return what each operator has of each split; where a split cannot be shared evenly, the first have one more."""
    count = len(OPERATORS)
    return [{split: size // count + (i < size % count) for split, size in SPLIT_SIZES.items()} for i in range(count)]


def _in_proportion(count: int) -> dict[str, int]:
    total = sum(SPLIT_SIZES.values())
    held_out = {split: round(count * size / total) for split, size in SPLIT_SIZES.items() if split != "train"}
    return {"train": count - sum(held_out.values())} | held_out


def _deal(examples: Sequence[Example], sizes: Mapping[str, int], draw: random.Random) -> dict[str, list[Example]]:
    """Deal ``examples`` out to splits of these sizes so that each answer is spread over them in proportion."""
    dealt: dict[str, list[Example]] = {split: [] for split in sizes}
    by_answer = sorted(examples, key=lambda example: example.answer)
    for done, example in enumerate(by_answer, start=1):
        behind = {
            split: size * done / len(examples) - len(dealt[split])
            for split, size in sizes.items()
            if len(dealt[split]) < size
        }
        dealt[max(behind, key=behind.__getitem__)].append(example)
    for split in dealt.values():
        draw.shuffle(split)
    return dealt


def _unusable_answers(tokens: Mapping[int, int]) -> list[str]:
    missing = LARGEST + 1 - len(tokens)
    if not missing:
        return []
    if set(tokens) == set(range(10)):
        return [
            f"{missing} of the {LARGEST + 1} answers: this tokenizer splits numbers into digits, and an answer must be "
            "one token, so it is 0..9"
        ]
    return [f"{missing} of the {LARGEST + 1} answers 0..{LARGEST}: not one token in this tokenizer"]


def _shortcomings(operator: str, drawn: _Drawn, size: int, sizes: Mapping[str, int]) -> list[str]:
    """Say in words what keeps ``operator`` from its share."""
    count = len(drawn.examples)
    said = []
    if drawn.unusable:
        said.append(f"{operator}: {drawn.unusable} prompts whose answer is not one token of its own after them")
    if count < FEWEST:
        said.append(f"{operator}: {count} prompts can be made, at least {FEWEST} are needed")
    elif count < size:
        used = f"{count}, split into {' / '.join(str(part) for part in sizes.values())}"
        rest = drawn.possible - drawn.unusable - count
        said.append(
            f"{operator}: {size - count} of {size} prompts: used are {used}; "
            + (f"with the other {rest} some answer would have more than its share" if rest else "there are no more")
        )
    return said
