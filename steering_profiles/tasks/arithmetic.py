"""Arithmetic, the second task of RASteer (arXiv:2507.00322): predict a sum, difference, product or quotient.

Each operator is a group::

    7 + 12 =            -> 19
    91 / 13 =           -> 7

Operands and answers are whole numbers from 0 to 500, and the answer is one token. If the tokenizer encodes a number
and the space before it as one token, the prompt ends with ``=``, otherwise with the space. With a tokenizer that splits
numbers into digits the answers are 0 to 9.
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
"""Largest operand and answer."""
SPLIT_SIZES = {"train": 750, "dev": 350, "test": 350}
"""Prompts per split over all operators, as in the paper."""
FEWEST = 12
"""Minimum number of prompts of an operator. An operator with fewer is left out."""


@dataclass(frozen=True)
class _Spelling:
    """The end of prompts and the start of answers."""

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
    """Number of pairs of operands with these answers."""
    unusable: int
    """Number of drawn pairs whose answer is not one token after the prompt."""


def arithmetic(tokenizer: "PreTrainedTokenizerBase", seed: int = 0) -> Task:
    """Make the task for ``tokenizer``.

    Each split has nearly equally many prompts of each operator, and no prompt is in two splits. Within an operator no
    answer has more than its even share of the prompts; without that limit most products would be 0. If an operator has
    too few prompts, all of them are used and split in the same proportion.

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
    """Return the spelling with which most answers are one token, and the token of each of these answers."""
    known: dict[_Spelling, dict[int, int]] = {}
    for spelling in _SPELLINGS:
        text = spelling.prompt(1, "+", 1)
        prompt = encode_prompt(tokenizer, text)
        found = {n: token_after(tokenizer, text, prompt, f"{spelling.space}{n}") for n in range(LARGEST + 1)}
        known[spelling] = {answer: token for answer, token in found.items() if token is not None}
    best = max(_SPELLINGS, key=lambda spelling: len(known[spelling]))
    return best, known[best]


def _pairs(operator: str, answer: int) -> list[tuple[int, int]]:
    """Return all pairs of operands with which ``operator`` gives exactly ``answer``; no divisor is zero."""
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
    """Draw up to ``size`` prompts, one per answer in turn, until every answer has its share."""
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
        for example in tried[answer]:  # an iterator, which continues after the last pair
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
    """Yield the prompt of each pair; None if its answer is not ``token``."""
    for a, b in pairs:
        text = spelling.prompt(a, operator, b)
        prompt = encode_prompt(tokenizer, text)
        if token_after(tokenizer, text, prompt, f"{spelling.space}{answer}") == token:
            yield Example(operator, text, prompt, token)
        else:
            yield None


def _even_shares() -> list[dict[str, int]]:
    """Return the size of each split per operator; a remainder goes to the first operators, one prompt each."""
    count = len(OPERATORS)
    return [{split: size // count + (i < size % count) for split, size in SPLIT_SIZES.items()} for i in range(count)]


def _in_proportion(count: int) -> dict[str, int]:
    total = sum(SPLIT_SIZES.values())
    held_out = {split: round(count * size / total) for split, size in SPLIT_SIZES.items() if split != "train"}
    return {"train": count - sum(held_out.values())} | held_out


def _deal(examples: Sequence[Example], sizes: Mapping[str, int], draw: random.Random) -> dict[str, list[Example]]:
    """Distribute ``examples`` to splits of these sizes so that each answer is spread over them in proportion."""
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
            "one token, which leaves 0..9"
        ]
    return [f"{missing} of the {LARGEST + 1} answers 0..{LARGEST}: not a single token in this tokenizer"]


def _shortcomings(operator: str, drawn: _Drawn, size: int, sizes: Mapping[str, int]) -> list[str]:
    """Return sentences on why ``operator`` has fewer prompts than its share."""
    count = len(drawn.examples)
    said = []
    if drawn.unusable:
        said.append(f"{operator}: {drawn.unusable} prompts whose answer is not a single token after the prompt")
    if count < FEWEST:
        said.append(f"{operator}: only {count} prompts can be made; at least {FEWEST} are needed")
    elif count < size:
        used = f"{count} (split into {' / '.join(str(part) for part in sizes.values())})"
        rest = drawn.possible - drawn.unusable - count
        said.append(
            f"{operator}: {size - count} of {size} prompts are missing; {used} are used; "
            + (f"with the other {rest} an answer would have more than its share" if rest else "there are no others")
        )
    return said
