"""The sequences that a worker runs: the steering of each, and where the conditions of it hold."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np

from steering_profiles.composition import Steering
from steering_profiles.conditions import ConditionTrace
from steering_server.errors import EngineError

BytesOf = Callable[[int], bytes]

Run = tuple[Steering, int]
"""A steering without conditions, and a number of tokens one after the other that it is for."""


@dataclass(frozen=True)
class StepTokens:
    """The tokens of one sequence up to the end of a step."""

    ids: np.ndarray
    """``[positions]``, from the first token of the prompt on."""
    start: int
    """Position of the first token that the step computes."""
    settled: int
    """Position from which on tokens are drafts, which may be rejected."""
    prompt_length: int


class RunningSequence:
    """One sequence."""

    def __init__(self, steering: Steering, bytes_of: BytesOf | None) -> None:
        """Follow a sequence under ``steering``; ``bytes_of`` is the text of a token, needed by conditions alone."""
        self.steering = steering
        self._bytes_of = bytes_of
        self._where: dict[int, Steering] = {}
        self._trace: _Trace | None = None

    def runs(self, count: int, tokens: Callable[[], StepTokens]) -> list[Run]:
        """Return the steerings of the ``count`` tokens of a step, in order.

        ``tokens`` says which they are; it is asked only where there are conditions.

        Raises:
            EngineError: a token is not known, so that nobody can say whether a condition holds.
        """
        if not self.steering.conditions:
            return [(self.steering, count)]
        step = tokens()
        if self._trace is None or self._trace.prompt_length != step.prompt_length:
            assert self._bytes_of is not None, "an engine that cannot test conditions refuses them"
            self._trace = _Trace(self.steering, self._bytes_of, step.prompt_length)
        return [(self._at(held), len(list(same))) for held, same in groupby(self._trace.held(step))]

    def _at(self, held: int) -> Steering:
        if held not in self._where:
            self._where[held] = self.steering.where(held)
        return self._where[held]


class _Trace:
    """Where the conditions of a sequence hold.

    vLLM may compute tokens again, from the start after preemption, or take drafts back. So the tokens that have been
    read are compared with those of the step, and where they differ the sequence is read again.
    """

    def __init__(self, steering: Steering, bytes_of: BytesOf, prompt_length: int) -> None:
        self.prompt_length = prompt_length
        self._begin = partial(ConditionTrace, steering.conditions, bytes_of, prompt_length)
        self._trace = self._begin()
        self._read = np.zeros(0, dtype=np.int32)

    def held(self, step: StepTokens) -> list[int]:
        """Return which conditions hold at each position that the step computes."""
        end = len(step.ids)
        known = min(len(self._read), end)
        if not np.array_equal(self._read[:known], step.ids[:known]):
            self._trace, self._read = self._begin(), self._read[:0]
        settled = min(step.settled, end)
        if settled > len(self._read):
            self._trace.read(_known(step.ids[len(self._read) : settled]))
            self._read = step.ids[:settled].copy()
        drafts = self._trace.held_if(_known(step.ids[len(self._read) :]))
        return self._trace.held_so_far(step.start, end) + drafts[max(0, step.start - len(self._read)) :]


class RunningSequences:
    """The sequences that ran last, by the id of their request; neither their end nor preemption has to be observed."""

    def __init__(self, most: int, steering_of: Callable[[Any], Steering], bytes_of: BytesOf | None) -> None:
        """Keep ``most`` sequences; ``steering_of`` is the steering that sampling parameters ask for."""
        self._most = most
        self._steering_of = steering_of
        self._bytes_of = bytes_of
        self._kept: dict[str, tuple[Any, RunningSequence]] = {}  # in the order of their last use

    def of(self, request: str, params: Any) -> RunningSequence:
        """Return the sequence of a request with these sampling parameters.

        Raises:
            RequestError: they ask for what cannot be applied.
        """
        known = self._kept.pop(request, None)
        if known is None or known[0] is not params:
            if len(self._kept) >= self._most:
                del self._kept[next(iter(self._kept))]
            known = params, RunningSequence(self._steering_of(params), self._bytes_of)
        self._kept[request] = known
        return known[1]


def _known(ids: np.ndarray) -> Sequence[int]:
    """Return token ids as a list.

    Raises:
        EngineError: one is a placeholder.
    """
    if len(ids) and ids.min() < 0:
        raise EngineError("a token is not on the CPU yet, so that the conditions of a profile cannot be tested")
    known: list[int] = ids.tolist()
    return known
