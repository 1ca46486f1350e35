"""Tasks and their examples, as data."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import TYPE_CHECKING, TypeVar

from steering_profiles.conditions import Condition
from steering_profiles.errors import TaskError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


_T = TypeVar("_T")


@dataclass(frozen=True)
class Example:
    """A prompt and its correct next token, or its whole answer.

    A whole answer is right if greedy decoding generates all of its tokens and then does not go on with it.
    """

    group: str
    """The sub-task of the example."""
    text: str
    prompt: tuple[int, ...]
    answer: int
    """The correct next token: the answer, or the first token of a whole answer."""
    candidates: tuple[int, ...] = ()
    """The possible answers, including the correct one; empty if any token is possible."""
    topic: tuple[int, int] | None = None
    """Token range of the topic in ``prompt``, from its first token to one past its last; None if unknown."""
    template: str = ""
    """Template of the prompt: prompts of the same group and template differ in the topic only. Empty if unknown."""
    rest: tuple[int, ...] = ()
    """Tokens of a whole answer after the first."""
    ends_with: str = ""
    """Last character of a whole answer, which must end there (:mod:`.continuing`); empty if only one token counts."""

    @property
    def whole_answer(self) -> tuple[int, ...]:
        """All tokens of the answer."""
        return (self.answer, *self.rest)

    @property
    def scored_positions(self) -> int:
        """Number of positions that decide whether the answer is right: one per token, and where a whole one ends."""
        return len(self.whole_answer) + bool(self.ends_with)

    @property
    def scored_tokens(self) -> tuple[int, ...]:
        """Tokens of the pass that scores the answer, at its last :attr:`scored_positions`; for one token the prompt."""
        return (*self.prompt, *self.whole_answer[: self.scored_positions - 1])


@dataclass(frozen=True)
class Pair:
    """A prompt and a counterfactual prompt with another answer."""

    clean: Example
    counterfactual: Example


@dataclass(frozen=True)
class Task:
    """Next-token prompts in groups, split into train, dev and test."""

    name: str
    seed: int
    groups: tuple[str, ...]
    """The sub-tasks, in the order in which reports list them."""
    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    test: tuple[Example, ...]
    left_out: tuple[str, ...] = ()
    """Parts of the task that cannot be used with this tokenizer and model, each with the reason."""
    fit_formats: Mapping[str, tuple[Example, ...]] = field(default_factory=dict)
    """Prompts of the same task in other formats, by format. Fits use them to find profiles that generalise."""
    choosing_formats: Mapping[str, tuple[Example, ...]] = field(default_factory=dict)
    """Prompts in further formats, which move no scale: a profile is kept only if no group of them loses by it."""
    conditions: tuple[Condition, ...] = ()
    """Conditions that a fit may give to its profile, a narrower one after those that hold in more places."""
    group_conditions: Mapping[str, Condition] = field(default_factory=dict)
    """By group the condition that holds at the end of its prompts, and of no others; empty where text cannot tell."""
    pairs: tuple[Pair, ...] = ()
    """Train prompts with counterfactual prompts; empty if the task has none."""

    @property
    def split_sizes(self) -> dict[str, int]:
        """Number of examples per split."""
        return {"train": len(self.train), "dev": len(self.dev), "test": len(self.test)}

    @property
    def answers(self) -> dict[str, int]:
        """Answer token of each group; empty if a group has several or a whole answer, or there is only one group."""
        of_group = {
            group: {example.answer for example in self.train if example.group == group} for group in self.groups
        }
        several = self.has_whole_answers or any(len(answers) != 1 for answers in of_group.values())
        if len(self.groups) < 2 or several:
            return {}
        return {group: next(iter(answers)) for group, answers in of_group.items()}

    @property
    def has_whole_answers(self) -> bool:
        """Whether a whole answer is asked for anywhere in the splits, rather than the next token."""
        return any(example.ends_with for example in (*self.train, *self.dev, *self.test))

    def require_next_tokens(self, what: str) -> None:
        """Check that all answers are the next token, as ``what`` needs it.

        Raises:
            TaskError: there are whole answers.
        """
        if self.has_whole_answers:
            raise looks_at_next_tokens(what, self.name)

    def require_conditions(self, are_tried: bool) -> None:
        """Check that there are conditions, if they ``are_tried``.

        Raises:
            TaskError: there are none.
        """
        if are_tried and not self.conditions:
            raise no_conditions(self.name)

    def require_group_conditions(self) -> None:
        """Check that every group can be recognised by a condition.

        Raises:
            TaskError: one cannot.
        """
        if not set(self.groups) <= self.group_conditions.keys():
            raise no_group_conditions(self.name)


def looks_at_next_tokens(what: str, task: str) -> TaskError:
    """Return the error that ``what`` cannot be done with ``task``, which asks for whole answers."""
    return TaskError(f"{what} looks at the next token only, and task {task} asks for whole answers")


def no_conditions(task: str) -> TaskError:
    """Return the error that conditions are to be tried with ``task``, which has none."""
    return TaskError(f"conditions are to be tried, but task {task} has none; leave --conditions out")


def no_group_conditions(task: str) -> TaskError:
    """Return the error that each group of ``task`` is to have its own settings, and none can be recognised."""
    return TaskError(
        f"each sub-task is to have settings of its own, but task {task} has no conditions that tell which sub-task a "
        "prompt belongs to; leave --per-group out"
    )


def next_token_examples(examples: Sequence[Example]) -> Iterator[Example]:
    """Yield one example per token of each answer: the prompt with the answer's earlier tokens, and the next one.

    A next-token example is yielded as it is.
    """
    for example in examples:
        if not example.ends_with:
            yield example
            continue
        whole = example.whole_answer
        for done, token in enumerate(whole):
            yield Example(example.group, example.text, (*example.prompt, *whole[:done]), token)


def single_token(tokenizer: "PreTrainedTokenizerBase", text: str) -> int | None:
    """Return the token of ``text``, or None if it is several tokens or unknown to the tokenizer."""
    tokens: Sequence[int] = tokenizer.encode(text, add_special_tokens=False)
    return tokens[0] if len(tokens) == 1 and tokens[0] != tokenizer.unk_token_id else None


def balanced(examples: Sequence[Example]) -> list[Example]:
    """Return ``examples`` in an order in which the groups are evenly represented in every part of the list."""
    seen: dict[str, int] = {}
    ranked: list[tuple[int, int]] = []
    for example in examples:
        seen[example.group] = seen.get(example.group, -1) + 1
        ranked.append((seen[example.group], len(ranked)))
    return [examples[index] for _, index in sorted(ranked)]


def round_robin(lists: Sequence[Sequence[_T]]) -> list[_T]:
    """Return the first of every list, then the second of every list, and so on."""
    return [thing for turn in zip_longest(*lists) for thing in turn if thing is not None]
