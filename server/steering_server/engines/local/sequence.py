"""One sequence on its way through the engine, and the group it was asked for with."""

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog
from torch import Tensor

from steering_server.engines.local.packed import Opened, RowInput
from steering_server.engines.local.penalties import History
from steering_server.engines.local.sampling import logprobs_of
from steering_server.engines.local.slots import Slot
from steering_server.errors import EngineError
from steering_server.generation.requests import Chunk, GenerationRequest, TokenLogprob
from steering_server.generation.text import TextStream

_log = structlog.get_logger("steering_server.engine")

Emit = Callable[[int, Chunk | EngineError], None]
"""Called in the engine's thread with a sequence's index in its group and what it has to report."""


@dataclass(eq=False)
class Group:
    """Sequences that were asked for together and report to the same place."""

    emit: Emit
    waiting: "deque[SequenceState]" = field(default_factory=deque)
    running: "list[SequenceState]" = field(default_factory=list)
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
class Place:
    """What a sequence holds while it runs."""

    slot: Slot
    steering_row: int
    opened: Opened | None = None
    """Of a sequence whose steering is gated."""
    source: "SequenceState | None" = None
    """A running sequence that begins with the same tokens and is steered alike: its state is copied, not computed."""
    source_length: int = 0
    leader: "SequenceState | None" = None
    """A running sequence with the same prompt, steered alike below layer ``fork``: it computes for both up to there."""
    fork: int = 0


class SequenceState:
    """A sequence, waiting or running: what has been computed, what comes next, what has been reported."""

    def __init__(self, group: Group, index: int, request: GenerationRequest, text: TextStream) -> None:
        self.group = group
        self.index = index
        self.request = request
        self.text = text
        self.tokens = list(request.prompt)
        self.history = History(frozenset(request.prompt))
        self.place: Place | None = None
        self._random = random.Random(request.sampling.seed)
        self._scored_from = request.sampling.prompt_logprobs_from
        self._prompt_logprobs: list[TokenLogprob | None] = []

    @property
    def running(self) -> Place:
        """What it holds.

        Raises:
            RuntimeError: it holds nothing, since it does not run.
        """
        if self.place is None:
            raise RuntimeError("this sequence does not run")
        return self.place

    @property
    def computed(self) -> int:
        """Of how many tokens the state is there."""
        return self.place.slot.computed if self.place is not None else 0

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

    @property
    def most_shared(self) -> int:
        """How many tokens at most need not be computed here: those after them have logits that are wanted."""
        most = len(self.tokens) - 1
        return most if self._scored_from is None else min(most, max(self._scored_from - 1, 0))

    def start(self, place: Place) -> None:
        """Take a place in the running batch, for the first time or again."""
        self.place = place
        # Nothing precedes the first token.
        self._prompt_logprobs = [None] if self._scored_from == 0 else []

    def emit(self, chunk: Chunk) -> None:
        """Report ``chunk`` to whoever asked for this sequence."""
        self.group.report(self.index, chunk)

    def draw(self) -> float:
        """Return this sequence's next random number in [0, 1)."""
        return self._random.random()

    def next_input(self, most: int) -> RowInput:
        """Return the next tokens to compute, at most ``most``, with the logits wanted for them."""
        place, computed = self.running, self.computed
        end = min(len(self.tokens), computed + most)
        first = end - 1 if self._samples_at(end) else end
        if self._scored_from is not None:
            first = min(first, max(self._scored_from - 1, computed))
        return RowInput(
            tokens=self.tokens[computed:end],
            position=computed,
            slot=place.slot.index,
            steering_row=place.steering_row,
            logits_for=range(first - computed, end - computed),
            opened=place.opened,
        )

    def advance(self, row: RowInput, logits: Tensor) -> Tensor | None:
        """Take in the step that ``row`` was part of; return the logits to sample from, ``[vocab]``, if it is time."""
        start = row.position + row.logits_for.start
        self.running.slot.computed = row.position + len(row.tokens)
        self._score_prompt(start, logits)
        return logits[-1] if self._samples_at(self.computed) else None

    def push(self, token: int, logprob: TokenLogprob | None, *, is_end: bool) -> Chunk:
        """Add a generated token; return what can be reported, the last chunk if the sequence ends with it."""
        self.tokens.append(token)
        self.history.generated[token] += 1
        if is_end:
            return self.text.end(token, logprob)
        chunk = self.text.push(token, logprob)
        if not chunk.finish_reason and self.generated >= self.request.sampling.max_tokens:
            return chunk + self.text.finish("length")
        return chunk

    def prompt_report(self) -> Chunk | None:
        """Return the prompt's log-probabilities, once, when the whole prompt has been computed."""
        if self._scored_from is None or self.remaining:
            return None
        self._scored_from = None
        return Chunk(prompt_logprobs=tuple(self._prompt_logprobs))

    def _samples_at(self, computed: int) -> bool:
        return computed == len(self.tokens) and self.request.sampling.max_tokens > 0

    def _score_prompt(self, start: int, logits: Tensor) -> None:
        if self._scored_from is None:
            return
        following = self.request.prompt[start + 1 : self.computed + 1]
        if following:
            alternatives = [self.request.sampling.logprobs or 0] * len(following)
            self._prompt_logprobs.extend(logprobs_of(logits[: len(following)], following, alternatives))
