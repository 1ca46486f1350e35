"""A grader of multiple choice: which choice the model finds likeliest."""

from dataclasses import dataclass
from typing import ClassVar

from steering_ab.datasets.item import Item
from steering_ab.errors import GraderError
from steering_ab.graders.grader import Answer, require_expected

NORMALISED = "normalised"


@dataclass(frozen=True)
class LikeliestChoice:
    """Whether the choice with the greatest log-probability, or log-probability per byte, is an expected one."""

    per_byte: bool = False
    yes_no: ClassVar[bool] = True

    def require(self, item: Item) -> None:
        """Check that the item has a prompt, choices, and among them the expected one."""
        if item.prompt is None:
            raise GraderError("messages: cannot be scored; multiple choice by log-probability needs a prompt")
        if not item.choices:
            raise GraderError("choices: is missing; multiple choice needs at least 2")
        require_expected(item)
        for expected in item.expected:
            if expected not in item.choices:
                raise GraderError(f"expected: is {expected!r:.60}, which is none of the choices")

    def grade(self, item: Item, answer: Answer) -> float:
        """Return 1 if the likeliest choice is an expected one.

        Raises:
            GraderError: the log-probabilities of the choices are not known.
        """
        if len(answer.choice_logprobs) != len(item.choices):
            raise GraderError("the log-probabilities of the choices are not known")
        scores = [
            logprob / len(choice.encode()) if self.per_byte else logprob
            for choice, logprob in zip(item.choices, answer.choice_logprobs, strict=True)
        ]
        return float(item.choices[scores.index(max(scores))] in item.expected)


def likeliest_choice(argument: str | None) -> LikeliestChoice:
    """Return the grader; with the argument ``normalised`` by log-probability per byte.

    Raises:
        GraderError: the argument is something else.
    """
    if argument not in (None, NORMALISED):
        raise GraderError(f"grader choice:{argument}: allowed: choice, or choice:{NORMALISED} for the mean per byte")
    return LikeliestChoice(argument == NORMALISED)
