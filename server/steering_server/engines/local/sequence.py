"""The state of one sequence in the engine, and the group of sequences of one request."""

import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog
from torch import Tensor

from steering_profiles.conditions import ConditionTrace
from steering_profiles.final_layer_fields import Gate
from steering_profiles.steering import TokenRows
from steering_server.engines.local.grammars.matching import Matcher
from steering_server.engines.local.penalties import TokenHistory
from steering_server.engines.local.ragged import OpenGate, SequenceInput
from steering_server.engines.local.sampling import logprobs_of
from steering_server.engines.local.slots import CacheSlot
from steering_server.errors import EngineError
from steering_server.generation.detokenizer import TextStream
from steering_server.generation.requests import Chunk, GenerationRequest, TokenLogprob

_log = structlog.get_logger("steering_server.engine")

Emit = Callable[[int, Chunk | EngineError], None]
"""Called in the engine's thread with a sequence's index in its group and a chunk of its output, or the error."""


@dataclass(eq=False)
class Group:
    """Sequences that were submitted together and report through the same ``emit``."""

    emit: Emit
    client: str | None = None
    """Who sent the request, where the queue is fair over clients; None where it is fair over requests."""
    waiting: "deque[SequenceState]" = field(default_factory=deque)
    running: "list[SequenceState]" = field(default_factory=list)
    cancelled: bool = False

    def report(self, index: int, report: Chunk | EngineError) -> None:
        """Pass ``report`` to ``emit``; if that fails, as with a closed event loop, the group counts as cancelled."""
        if self.cancelled:
            return
        try:
            self.emit(index, report)
        except Exception:  # any exception, since it must not stop the engine for the other groups
            _log.exception("report_failed")
            self.cancelled = True


@dataclass(eq=False)
class Allocation:
    """The resources of a running sequence, and the running sequences it shares computation with."""

    slot: CacheSlot
    rows: TokenRows
    """Rows of the steering table; where the steering is gated, with its gate closed."""
    open_gate: Gate | None = None
    """Set for a sequence whose steering is gated."""
    open_rows: TokenRows | None = None
    """Rows of a gated steering with its gate open."""
    prefix_source: "SequenceState | None" = None
    """A running sequence with the same prefix and the same steering, from which the KV cache is copied."""
    prefix_length: int = 0
    lower_layers_source: "SequenceState | None" = None
    """A running sequence with the same prompt, which computes the layers below ``divergence_layer`` for both."""
    divergence_layer: int = 0

    @property
    def is_independent(self) -> bool:
        """Whether the sequence shares no computation with another one."""
        return self.prefix_source is None and self.lower_layers_source is None


class SequenceState:
    """A sequence, waiting or running: its tokens, how many of them are computed, and what has been reported."""

    def __init__(
        self,
        group: Group,
        index: int,
        request: GenerationRequest,
        text: TextStream,
        matcher: Matcher | None = None,
        trace: ConditionTrace | None = None,
    ) -> None:
        """Begin a sequence that waits; ``trace`` reads where its steering's conditions hold, if that has any."""
        self.group = group
        self.index = index
        self.request = request
        self.text = text
        self.matcher = matcher
        self._trace = trace
        self.tokens = list(request.prompt)
        self._history: TokenHistory | None = None
        self.allocation: Allocation | None = None
        self._random = random.Random(request.sampling.seed)
        self._scored_from = request.sampling.prompt_logprobs_from
        self._prompt_logprobs: list[TokenLogprob | None] = []
        self.has_run = False
        """Whether the sequence runs, or has run before it was preempted."""

    @property
    def history(self) -> TokenHistory:
        """The tokens of the prompt and of the text; made when it is needed, since thousands of sequences may wait."""
        if self._history is None:
            self._history = TokenHistory(frozenset(self.request.prompt))
        return self._history

    @property
    def allocated(self) -> Allocation:
        """The allocation of a running sequence.

        Raises:
            RuntimeError: the sequence is not running.
        """
        if self.allocation is None:
            raise RuntimeError("this sequence is not running")
        return self.allocation

    @property
    def computed(self) -> int:
        """Number of tokens in the KV cache."""
        return self.allocation.slot.computed if self.allocation is not None else 0

    @property
    def generated(self) -> int:
        """Number of tokens generated."""
        return len(self.tokens) - len(self.request.prompt)

    @property
    def remaining(self) -> int:
        """Number of known tokens that have yet to be computed."""
        return len(self.tokens) - self.computed

    @property
    def is_scored_only(self) -> bool:
        """Whether the whole prompt has been computed and no token is to be generated."""
        return self.remaining == 0 and self.request.sampling.max_tokens == 0

    @property
    def max_shared(self) -> int:
        """Number of tokens that may be copied from another sequence; the logits of all later ones are wanted."""
        limit = len(self.tokens) - 1
        return limit if self._scored_from is None else min(limit, max(self._scored_from - 1, 0))

    def start(self, allocation: Allocation) -> None:
        """Begin to run with ``allocation``, for the first time or after a preemption."""
        self.allocation = allocation
        if not self.has_run:
            self.has_run = True
            self.request.timeline.started_at = time.monotonic()
        # The first token has no log-probability.
        self._prompt_logprobs = [None] if self._scored_from == 0 else []

    def emit(self, chunk: Chunk) -> None:
        """Report ``chunk`` through the group."""
        self.group.report(self.index, chunk)

    def draw(self) -> float:
        """Return this sequence's next random number in [0, 1)."""
        return self._random.random()

    def next_input(self, max_tokens: int) -> SequenceInput:
        """Return the next tokens to compute, at most ``max_tokens``, and the logits wanted for them."""
        allocation, computed = self.allocated, self.computed
        end = min(len(self.tokens), computed + max_tokens)
        first = end - 1 if self._samples_at(end) else end
        if self._scored_from is not None:
            first = min(first, max(self._scored_from - 1, computed))
        held = None if self._trace is None else self._trace.held(self.tokens, computed, end)
        row, token_rows = _rows(allocation.rows, held)
        open_gate = None
        if allocation.open_gate is not None and allocation.open_rows is not None:
            open_gate = OpenGate(allocation.open_gate, *_rows(allocation.open_rows, held))
        return SequenceInput(
            tokens=self.tokens[computed:end],
            position=computed,
            slot=allocation.slot.index,
            steering_row=row,
            logits_for=range(first - computed, end - computed),
            open_gate=open_gate,
            token_rows=token_rows,
        )

    def advance(self, computed: SequenceInput, logits: Tensor) -> bool:
        """Record a computed input and its logits; return whether a token is to be sampled from the last of them."""
        start = computed.position + computed.logits_for.start
        self.allocated.slot.computed = computed.position + len(computed.tokens)
        self._score_prompt(start, logits)
        return self._samples_at(self.computed)

    def push(self, token: int, logprob: TokenLogprob | None, *, is_end: bool) -> Chunk:
        """Add a generated token; return the output that can be reported, with a finish reason if it is the last.

        Raises:
            GrammarTooComplex: the tokens that the grammar allows next cannot be found within its limits.
        """
        self.tokens.append(token)
        self.request.timeline.token_at.append(time.monotonic())
        self.history.generated[token] += 1
        if is_end:
            return self.text.end(token, logprob)
        chunk = self.text.push(token, logprob)
        if self.matcher is not None and not chunk.finish_reason:
            self.matcher.push(token)
            if self.matcher.is_complete:
                return chunk + self.text.finish("stop")
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
            sampling = self.request.sampling
            alternatives = [sampling.prompt_alternatives] * len(following)
            self._prompt_logprobs.extend(
                logprobs_of(logits[: len(following)], following, alternatives, ranked=sampling.prompt_ranks)
            )


def _rows(rows: TokenRows, held: list[int] | None) -> tuple[int, list[int] | None]:
    """Return the row of a sequence's first token, and those of all where conditions choose them."""
    if held is None:
        return rows.of([0])[0], None
    of_tokens = rows.of(held)
    return of_tokens[0], of_tokens
