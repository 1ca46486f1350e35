"""Arms that are a function of one's own, or answers that are there already."""

import inspect
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from steering_ab.asking.asker import AskSettings, Facts, Refused, Unanswered
from steering_ab.datasets.item import Item
from steering_ab.errors import AskingError
from steering_ab.graders.grader import Answer

Answering = Callable[[Item, str], str | Answer | Awaitable[str | Answer]]
"""Returns the answer of an arm to an item; it may be a coroutine function."""


@dataclass
class Function:
    """A function that answers."""

    function: Answering
    name: str
    """What the function is called in the report."""
    settings: AskSettings
    together: bool = field(default=False, init=False)

    async def facts(self, arms: Mapping[str, str]) -> Facts:
        """Return what is known: the function's name."""
        described = {label: {"called_with": name} for label, name in arms.items()}
        return Facts(self.name, "(a function)", described, {})

    async def answer(self, item: Item, arms: Mapping[str, str], repeat: int) -> Mapping[str, Answer]:
        """Call the function for each arm."""
        return {label: await self._one(item, name) for label, name in arms.items()}

    async def _one(self, item: Item, arm: str) -> Answer:
        started = time.perf_counter()
        try:
            given = self.function(item, arm)
            given = await given if inspect.isawaitable(given) else given
        except Exception as exc:
            raise Unanswered(f"the function raised {type(exc).__name__}: {exc}") from exc
        if isinstance(given, Answer):
            return given
        if not isinstance(given, str):
            raise Refused(f"the function returned {given!r:.60}; allowed: text, or an Answer")
        return Answer(given, seconds=time.perf_counter() - started)

    async def score(self, item: Item, arms: Mapping[str, str]) -> Mapping[str, Answer]:
        """Return what the function returns, which must have the log-probabilities of the choices."""
        return await self.answer(item, arms, 0)


def given_answers(answers: Mapping[str, Sequence[str]], items: Sequence[Item]) -> Answering:
    """Return a function that returns ``answers``: for each arm one per item, in the order of the items.

    Raises:
        AskingError: an arm has more or fewer answers than there are items.
    """
    for arm, texts in answers.items():
        if isinstance(texts, str) or len(texts) != len(items):
            given = "a text" if isinstance(texts, str) else f"{len(texts)} answers"
            raise AskingError(f"answers: arm {arm!r} has {given} for {len(items)} items; give one answer per item")
    positions = {item.id: position for position, item in enumerate(items)}

    def answer(item: Item, arm: str) -> str:
        return answers[arm][positions[item.id]]

    return answer
