"""A grader that asks a model which of two answers is better, in both orders (Zheng et al. 2023, arXiv:2306.05685)."""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from steering_ab.datasets.item import Item
from steering_ab.errors import GraderError
from steering_ab.graders.grader import Answer, Verdict

Ask = Callable[[Sequence[Mapping[str, str]]], Awaitable[str]]
"""Asks the judge a conversation and returns its reply."""


@dataclass(frozen=True)
class JudgeModel:
    """The model that judges."""

    name: str
    """Its name and where it is, for the report and to tell its grades from those of others."""
    ask: Ask


_INSTRUCTION = (
    "You compare two answers to the same request and decide which is better. Judge by correctness first, then by "
    "helpfulness and clarity. The order of the answers and their length must not matter. {criterion}"
    "Reply with one line: [[A]] if answer A is better, [[B]] if answer B is better, or [[C]] for a tie."
)
_REQUEST = (
    "[Request]\n{question}\n{reference}\n[Answer A]\n{first}\n[End of answer A]\n\n"
    "[Answer B]\n{second}\n[End of answer B]"
)
_VERDICT = re.compile(r"\[\[\s*([ABC])\s*\]\]", re.IGNORECASE)
_BARE = re.compile(r"\W*([ABC])\W*", re.IGNORECASE)
_PREFERENCES = {"A": -1, "B": 1, "C": 0}
_MOST_SHOWN = 80


@dataclass(frozen=True)
class Judge:
    """Compares two answers. Where the orders disagree, the verdict is a tie."""

    ask: Ask
    criterion: str | None = None

    async def prefer(self, item: Item, first: Answer, second: Answer) -> Verdict:
        """Return which answer is better. Equal answers are a tie that the judge is not asked about.

        Raises:
            GraderError: a reply has no verdict.
        """
        if first.text == second.text:
            return Verdict(0.0)
        forward = await self.ask(self._messages(item, first.text, second.text))
        backward = await self.ask(self._messages(item, second.text, first.text))
        one, other = _preference(forward), -_preference(backward)
        return Verdict(float(one) if one == other else 0.0, one == other, (forward, backward))

    def _messages(self, item: Item, first: str, second: str) -> list[dict[str, str]]:
        criterion = f"The criterion is: {self.criterion}. " if self.criterion else ""
        reference = f"\n[A right answer]\n{item.expected[0]}\n" if item.expected else ""
        request = _REQUEST.format(question=item.question, reference=reference, first=first, second=second)
        return [
            {"role": "system", "content": _INSTRUCTION.format(criterion=criterion)},
            {"role": "user", "content": request},
        ]


def _preference(reply: str) -> int:
    """Return -1 for the first answer of the request, 1 for the second, 0 for a tie.

    Raises:
        GraderError: the reply has no verdict.
    """
    found = _VERDICT.findall(reply)
    bare = _BARE.fullmatch(reply)
    if not found and bare is None:
        raise GraderError(f"the judge's reply has no verdict [[A]], [[B]] or [[C]]: {reply.strip()[:_MOST_SHOWN]!r}")
    return _PREFERENCES[(found[-1] if found else bare[1] if bare else "C").upper()]
