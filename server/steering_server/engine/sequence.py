"""One sequence on its way through the engine, and the group it was asked for with."""

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog
from torch import Tensor

from steering_server.engine.penalties import History
from steering_server.engine.requests import Chunk, SequenceRequest, TokenLogprob
from steering_server.engine.runner import RowInput
from steering_server.engine.sampling import logprobs_of
from steering_server.engine.text import TextStream
from steering_server.errors import EngineError

_log = structlog.get_logger("steering_server.engine")

Emit = Callable[[int, Chunk | EngineError], None]
"""Called in the engine's thread with a sequence's index in its group and what it has to report."""


@dataclass(eq=False)
class Group:
    """Sequences that were asked for together and report to the same place."""

    emit: Emit
    waiting: deque[tuple[int, SequenceRequest]]
    running: "list[RunningSequence]" = field(default_factory=list)
    cancelled: bool = False

    def report(self, index: int, report: Chunk | EngineError) -> None:
        """Hand ``report`` to whoever asked. One who cannot take it, such as a closed event loop, has cancelled."""
        if self.cancelled:
            return
        try:
            self.emit(index, report)
        except Exception:  # whatever it is, it must not stop the engine for everybody else
            _log.exception("report_failed")
            self.cancelled = True


@dataclass(eq=False)
class RunningSequence:
    """A sequence that holds a slot: what has been computed, what comes next, what has been reported."""

    group: Group
    index: int
    request: SequenceRequest
    slot: int
    steering_row: int
    text: TextStream
    tokens: list[int] = field(init=False)
    computed: int = field(init=False, default=0)
    history: History = field(init=False)
    _random: random.Random = field(init=False)
    _prompt_logprobs: list[TokenLogprob | None] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.tokens = list(self.request.prompt)
        self.history = History(frozenset(self.request.prompt))
        self._random = random.Random(self.request.sampling.seed)
        if self.request.sampling.prompt_logprobs_from == 0:
            self._prompt_logprobs.append(None)  # nothing precedes the first token

    @property
    def generated(self) -> int:
        """How many tokens have been generated."""
        return len(self.tokens) - len(self.request.prompt)

    @property
    def remaining(self) -> int:
        """How many known tokens have yet to be computed."""
        return len(self.tokens) - self.computed

    @property
    def is_read(self) -> bool:
        """Whether nothing is left to compute: the prompt has been read and no token is wanted."""
        return self.remaining == 0 and self.request.sampling.max_tokens == 0

    def emit(self, chunk: Chunk) -> None:
        """Report ``chunk`` to whoever asked for this sequence."""
        self.group.report(self.index, chunk)

    def draw(self) -> float:
        """Return this sequence's next random number in [0, 1)."""
        return self._random.random()

    def next_input(self, most: int) -> RowInput:
        """Return the next tokens to compute, at most ``most``, with the logits wanted for them."""
        end = min(len(self.tokens), self.computed + most)
        first = end - 1 if self._samples_at(end) else end
        scored_from = self.request.sampling.prompt_logprobs_from
        if scored_from is not None and self.computed < len(self.request.prompt):
            first = min(first, max(scored_from - 1, self.computed))
        return RowInput(
            tokens=self.tokens[self.computed : end],
            position=self.computed,
            slot=self.slot,
            steering_row=self.steering_row,
            logits_for=range(first - self.computed, end - self.computed),
        )

    def advance(self, row: RowInput, logits: Tensor) -> Tensor | None:
        """Take in the step that ``row`` was part of; return the logits to sample from, ``[vocab]``, if it is time."""
        start = row.position + row.logits_for.start
        self.computed = row.position + len(row.tokens)
        self._score_prompt(start, logits)
        return logits[-1] if self._samples_at(self.computed) else None

    def push(self, token: int, logprob: TokenLogprob | None) -> Chunk:
        """Add a generated token; return what can be reported, the last chunk if the sequence ends with it."""
        self.tokens.append(token)
        self.history.generated[token] += 1
        chunk = self.text.push(token, logprob)
        if not chunk.finish_reason and self.generated >= self.request.sampling.max_tokens:
            return chunk + self.text.finish("length")
        return chunk

    def prompt_report(self) -> Chunk | None:
        """Return the prompt's log-probabilities, once, when the whole prompt has been computed."""
        if self.request.sampling.prompt_logprobs_from is None or self.generated or self.remaining:
            return None
        return Chunk(prompt_logprobs=tuple(self._prompt_logprobs))

    def _samples_at(self, computed: int) -> bool:
        return computed == len(self.tokens) and self.request.sampling.max_tokens > 0

    def _score_prompt(self, start: int, logits: Tensor) -> None:
        if self.request.sampling.prompt_logprobs_from is None:
            return
        following = self.request.prompt[start + 1 : self.computed + 1]
        if following:
            alternatives = [self.request.sampling.logprobs or 0] * len(following)
            self._prompt_logprobs.extend(logprobs_of(logits[: len(following)], following, alternatives))
