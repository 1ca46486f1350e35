"""Arithmetic, the second task of RASteer (arXiv:2507.00322): predict a sum, difference, product or quotient.

Each operator is a group::

    7 + 12 =            -> 19
    91 / 13 =           -> 7

Operands and answers are whole numbers from 0 to 500. In the paper's task, ``arithmetic``, the answer is one token, so
with a tokenizer that splits numbers into digits the answers are 0 to 9. In ``arithmetic-whole`` it is as many tokens as
the tokenizer makes of it: all of them must be generated, and no digit after them. If the tokenizer encodes a number and
the space before it as one token, the prompt ends with ``=``, otherwise with the space.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from steering_profiles.errors import TaskError
from steering_profiles.tasks.continuation import answer_after
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


_Tokens = tuple[int, ...]
_SPELLINGS = (_Spelling(" =", " "), _Spelling(" = ", ""))


@dataclass(frozen=True)
class _Form:
    """How prompts and answers are written for a tokenizer."""

    tokenizer: "PreTrainedTokenizerBase"
    spelling: _Spelling
    whole: bool
    """Whether answers may be several tokens."""

    def prompt(self, a: int, operator: str, b: int) -> tuple[str, _Tokens]:
        """Return the text of a prompt and its tokens."""
        text = self.spelling.prompt(a, operator, b)
        return text, encode_prompt(self.tokenizer, text)

    def answer(self, text: str, prompt: _Tokens, answer: int) -> _Tokens | None:
        """Return the tokens of ``answer`` after a prompt; None if it cannot be asked for."""
        return answer_after(self.tokenizer, text, prompt, f"{self.spelling.space}{answer}", self.whole)


@dataclass(frozen=True)
class _Drawn:
    """The prompts of one operator."""

    examples: tuple[Example, ...]
    possible: int
    """Number of pairs of operands with these answers."""
    unusable: int
    """Number of drawn pairs whose answer cannot be asked for after the prompt."""


def arithmetic(tokenizer: "PreTrainedTokenizerBase", seed: int = 0, *, whole: bool = False) -> Task:
    """Make the task for ``tokenizer``, with ``whole`` answers or those of one token.

    Each split has nearly equally many prompts of each operator, and no prompt is in two splits. Within an operator no
    answer has more than its even share of the prompts; without that limit most products would be 0. If an operator has
    too few prompts, all of them are used and split in the same proportion.

    Raises:
        TaskError: no operator can be used with this tokenizer.
    """
    name = "arithmetic-whole" if whole else "arithmetic"
    form, tokens = _form(tokenizer, whole)
    left_out = _unusable_answers(tokens, whole)
    wanted = dict(zip(OPERATORS, _even_shares(), strict=True))
    splits: dict[str, list[Example]] = {split: [] for split in SPLIT_SIZES}
    groups = []
    for operator in OPERATORS if tokens else ():
        draw = random.Random(f"arithmetic {seed} {operator}")
        size = sum(wanted[operator].values())
        drawn = _draw(form, operator, tokens, size, draw)
        sizes = wanted[operator] if len(drawn.examples) == size else _in_proportion(len(drawn.examples))
        left_out += _shortcomings(operator, drawn, size, sizes, whole)
        if len(drawn.examples) < FEWEST:
            continue
        groups.append(operator)
        for split, examples in _deal(drawn.examples, sizes, draw).items():
            splits[split] += examples
    if not groups:
        raise TaskError(f"{name}: no operator can be used with this tokenizer: {'; '.join(left_out)}")
    return Task(
        name=name,
        seed=seed,
        groups=tuple(groups),
        train=tuple(splits["train"]),
        dev=tuple(splits["dev"]),
        test=tuple(splits["test"]),
        left_out=tuple(left_out),
    )


def _form(tokenizer: "PreTrainedTokenizerBase", whole: bool) -> tuple[_Form, dict[int, _Tokens]]:
    """Return the form in which most answers can be asked for, and the tokens of each of these answers.

    Of forms with equally many it is the one with the fewest tokens.
    """
    known: dict[_Form, dict[int, _Tokens]] = {}
    for form in (_Form(tokenizer, spelling, whole) for spelling in _SPELLINGS):
        text, prompt = form.prompt(1, "+", 1)
        found = {answer: form.answer(text, prompt, answer) for answer in range(LARGEST + 1)}
        known[form] = {answer: tokens for answer, tokens in found.items() if tokens is not None}
    best = max(known, key=lambda form: (len(known[form]), -sum(map(len, known[form].values()))))
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


def _draw(form: _Form, operator: str, tokens: Mapping[int, _Tokens], size: int, draw: random.Random) -> _Drawn:
    """Draw up to ``size`` prompts, one per answer in turn, until every answer has its share."""
    answers = list(tokens)
    draw.shuffle(answers)
    pairs = {answer: _pairs(operator, answer) for answer in answers}
    for answer in answers:
        draw.shuffle(pairs[answer])
    tried = {answer: _try(form, operator, tokens[answer], answer, pairs[answer]) for answer in answers}
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
    form: _Form, operator: str, tokens: _Tokens, answer: int, pairs: Sequence[tuple[int, int]]
) -> Iterator[Example | None]:
    """Yield the prompt of each pair; None if its answer is not ``tokens``."""
    first, *rest = tokens
    ends_with = str(answer)[-1] if form.whole else ""
    for a, b in pairs:
        text, prompt = form.prompt(a, operator, b)
        if form.answer(text, prompt, answer) == tokens:
            yield Example(operator, text, prompt, first, rest=tuple(rest), ends_with=ends_with)
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
    by_answer = sorted(examples, key=lambda example: example.whole_answer)
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


def _unusable_answers(tokens: Mapping[int, _Tokens], whole: bool) -> list[str]:
    missing = LARGEST + 1 - len(tokens)
    if not missing:
        return []
    if whole:
        return [f"{missing} of the {LARGEST + 1} answers 0..{LARGEST}: unknown to this tokenizer after a prompt"]
    if set(tokens) == set(range(10)):
        return [
            f"{missing} of the {LARGEST + 1} answers: this tokenizer splits numbers into digits, and an answer must be "
            "one token, which leaves 0..9; arithmetic-whole asks for whole answers"
        ]
    return [f"{missing} of the {LARGEST + 1} answers 0..{LARGEST}: not a single token in this tokenizer"]


def _shortcomings(operator: str, drawn: _Drawn, size: int, sizes: Mapping[str, int], whole: bool) -> list[str]:
    """Return sentences on why ``operator`` has fewer prompts than its share."""
    count = len(drawn.examples)
    said = []
    if drawn.unusable:
        lacking = "not tokens of its own" if whole else "not a single token"
        said.append(f"{operator}: {drawn.unusable} prompts whose answer is {lacking} after the prompt")
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
