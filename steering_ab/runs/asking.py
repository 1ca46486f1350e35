"""Asking all items that have no answer yet, several at once."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from steering_ab.asking.asker import Asker, Refused, Unanswered
from steering_ab.datasets.dataset import Fault
from steering_ab.datasets.item import Item
from steering_ab.errors import AskingError
from steering_ab.graders.grader import Answer
from steering_ab.runs.folder import Answers

_MOST_IN_A_ROW = 10
"""After so many requests that all failed, the run ends."""

Keep = Callable[[Item, int, str, Answer], None]
"""Keeps the answer of an arm to an item in a repeat."""


@dataclass(frozen=True)
class Request:
    """What one request asks: an item under arms that have not answered it."""

    item: Item
    repeat: int
    arms: Mapping[str, str]
    scored: bool
    """Whether the choices are scored instead of generating text."""


@dataclass
class Unsettled:
    """Items without an answer, with the reason."""

    refused: dict[int, Fault] = field(default_factory=dict)
    """What the server refuses, by line: it would do so again."""
    failed: dict[int, Fault] = field(default_factory=dict)
    """What failed this time, by line."""


def requests_for(
    items: Sequence[Item],
    arms: Mapping[str, str],
    repeats: int,
    answers: Answers,
    scores: Callable[[Item], bool],
    *,
    together: bool,
) -> Iterator[Request]:
    """Yield a request for every item and repeat whose answers are missing; ``together`` for all arms at once.

    Items that ``scores`` is true for have their choices scored, once: no random number is drawn.
    """
    for item in items:
        scored = scores(item)
        for repeat in range(1 if scored else repeats):
            missing = {
                label: name for label, name in arms.items() if answers.get(item, repeat, label, scored=scored) is None
            }
            if together and missing:
                yield Request(item, repeat, arms, scored)
            elif not together:
                for label, name in missing.items():
                    yield Request(item, repeat, {label: name}, scored)


async def ask_all(
    asker: Asker, requests: Sequence[Request], keep: Keep, concurrency: int, advance: Callable[[bool], None]
) -> Unsettled:
    """Send ``requests``, at most ``concurrency`` at once, and keep each answer as it comes.

    After each request ``advance`` is told whether it was answered.

    Raises:
        AskingError: an arm does not exist, or the first requests, or many in a row, have all failed.
        RunError: an answer cannot be kept.
    """
    waiting = iter(requests)
    unsettled = Unsettled()
    in_a_row, answered = 0, 0
    ended: list[Exception] = []

    async def work() -> None:
        nonlocal in_a_row, answered
        for request in waiting:
            if ended:
                return
            item = request.item
            if item.line in unsettled.refused:
                advance(False)
                continue
            try:
                given = await (
                    asker.score(item, request.arms)
                    if request.scored
                    else asker.answer(item, request.arms, request.repeat)
                )
                for label, answer in given.items():
                    keep(item, request.repeat, label, answer)
                in_a_row, answered = 0, answered + 1
                advance(True)
            except (Refused, Unanswered) as exc:
                refused = isinstance(exc, Refused)
                (unsettled.refused if refused else unsettled.failed)[item.line] = Fault(item.line, str(exc))
                in_a_row += 1
                if in_a_row >= _MOST_IN_A_ROW and (not refused or not answered):
                    ended.append(AskingError(f"{in_a_row} requests in a row have failed, the last one: {exc}"))
                advance(False)
            except Exception as exc:
                ended.append(exc)

    tasks = [asyncio.create_task(work()) for _ in range(max(1, min(concurrency, len(requests))))]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if ended:
        raise ended[0]
    return unsettled
