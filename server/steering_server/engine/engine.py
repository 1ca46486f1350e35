"""The engine: a thread that runs one step after another over whatever sequences are there.

Sequences join and leave the running batch at every step. A step takes one token of each sequence that generates and
fills the rest of its token budget with pieces of prompts, so that a long prompt does not hold up the others.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog
import torch
from torch import Tensor

from steering_profiles.models import LoadedModel
from steering_server.engine.penalties import adjust
from steering_server.engine.requests import Chunk, SequenceRequest
from steering_server.engine.runner import RowInput, Runner
from steering_server.engine.sampling import logprobs_of, sample
from steering_server.engine.sequence import Emit, Group, RunningSequence
from steering_server.engine.text import TextStream
from steering_server.errors import EngineError, Overloaded

_log = structlog.get_logger("steering_server.engine")


@dataclass(frozen=True)
class EngineLimits:
    """How much the engine does at a time."""

    max_batch: int = 32
    """Sequences that run at the same time."""
    max_queue: int = 256
    """Sequences that may wait for a place in the batch."""
    max_length: int | None = None
    """Tokens of one sequence, prompt and completion together; None is what the model was made for."""
    step_tokens: int = 512
    """Tokens computed in one step, over all sequences."""


class Engine:
    """Runs sequences on one model. Thread-safe; results are reported from the engine's own thread."""

    def __init__(self, loaded: LoadedModel, limits: EngineLimits) -> None:
        self.max_length = min(limits.max_length or loaded.context_length, loaded.context_length)
        self._limits = limits
        self._runner = Runner(loaded, slots=limits.max_batch, length=self.max_length)
        self._decode = _decoder(loaded)
        self._end_tokens = _end_tokens(loaded)
        self._groups: list[Group] = []
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._loop, name="steering-engine", daemon=True)

    def start(self) -> None:
        """Begin to run."""
        self._thread.start()

    def close(self) -> None:
        """Stop after the current step; what still runs or waits is told so. The model is given back as it was."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()
        self._fail_all(EngineError("the server is shutting down"))
        self._runner.close()

    def submit(self, requests: Sequence[SequenceRequest], emit: Emit) -> Group:
        """Queue ``requests``, to run in one batch as far as there is room; ``emit`` gets what they have to report.

        Raises:
            Overloaded: more sequences would wait than the limits allow.
            EngineError: the engine is closing.
        """
        group = Group(emit, deque(enumerate(requests)))
        with self._changed:
            if self._closing:
                raise EngineError("the server is shutting down")
            queued = sum(len(other.waiting) for other in self._groups)
            if queued + len(requests) > self._limits.max_queue + self._runner.store.free_slots:
                raise Overloaded(
                    f"{queued} sequences are waiting, of {self._limits.max_queue} allowed, and this request would "
                    f"add {len(requests)}; try again later"
                )
            self._groups.append(group)
            self._changed.notify()
        return group

    def cancel(self, group: Group) -> None:
        """Stop ``group`` before the next step; nothing more is reported."""
        with self._changed:
            group.cancelled = True
            self._changed.notify()

    def _loop(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closing or self._groups)
                if self._closing:
                    return
                self._drop_ended()
                if not self._groups:
                    continue
            try:
                self._admit()
                self._step()
            except Exception as exc:  # whatever it is, nobody may wait for ever: it is logged and everybody is told
                _log.exception("step_failed")
                self._fail_all(EngineError(f"the engine failed: {exc}"))

    def _step(self) -> None:
        planned = self._plan()
        logits = self._runner.run([row for _, row in planned])
        ready = self._take_in(planned, logits)
        if ready:
            self._extend(ready)

    def _drop_ended(self) -> None:
        for group in self._groups:
            if group.cancelled:
                self._release_all(group)
        self._groups = [group for group in self._groups if group.waiting or group.running]

    def _admit(self) -> None:
        for group in self._groups:
            while group.waiting and self._runner.store.free_slots:
                index, request = group.waiting.popleft()
                sequence = RunningSequence(
                    group=group,
                    index=index,
                    request=request,
                    slot=self._runner.store.acquire(),
                    steering_row=self._runner.steering.acquire(request.steering),
                    text=TextStream(self._decode, request.prompt, request.sampling.stop),
                )
                group.running.append(sequence)

    def _plan(self) -> list[tuple[RunningSequence, RowInput]]:
        """Choose the tokens of the next step: those of generating sequences first, then prompts as they arrived."""
        running = [sequence for group in self._groups for sequence in group.running]
        running.sort(key=lambda sequence: sequence.remaining > 1)
        budget = self._limits.step_tokens
        planned = []
        for sequence in running:
            if budget == 0:
                break
            row = sequence.next_input(budget)
            budget -= len(row.tokens)
            planned.append((sequence, row))
        return planned

    def _take_in(
        self, planned: Sequence[tuple[RunningSequence, RowInput]], logits: Sequence[Tensor]
    ) -> list[tuple[RunningSequence, Tensor]]:
        """Record what was computed; return the sequences that get a token now, with their logits ``[vocab]``."""
        ready = []
        for (sequence, row), row_logits in zip(planned, logits, strict=True):
            if sequence not in sequence.group.running:
                continue  # another sequence of its group failed a moment ago
            if not bool(row_logits.amax(dim=-1).isfinite().all()):
                self._fail(sequence.group, EngineError("the model's output is not finite; a lower strength may help"))
                continue
            next_logits = sequence.advance(row, row_logits)
            report = sequence.prompt_report()
            if report is not None:
                sequence.emit(report)
            if next_logits is not None:
                ready.append((sequence, next_logits))
            elif sequence.is_read:
                self._finish(sequence, Chunk(finish_reason="length"))
        return [(sequence, row_logits) for sequence, row_logits in ready if sequence in sequence.group.running]

    def _extend(self, ready: Sequence[tuple[RunningSequence, Tensor]]) -> None:
        """Choose one more token for each of ``ready`` and report it."""
        sequences = [sequence for sequence, _ in ready]
        logits = torch.stack([row_logits for _, row_logits in ready])
        params = [sequence.request.sampling for sequence in sequences]
        adjusted = adjust(logits, params, [sequence.history for sequence in sequences], self._end_tokens)
        tokens = sample(adjusted, params, [sequence.draw() for sequence in sequences])
        scored = [row for row, p in enumerate(params) if p.logprobs is not None]
        logprobs = dict(
            zip(
                scored,
                logprobs_of(
                    logits[scored],
                    [tokens[row] for row in scored],
                    [params[row].logprobs or 0 for row in scored],
                ),
                strict=True,
            )
        )
        for row, (sequence, token) in enumerate(zip(sequences, tokens, strict=True)):
            if token in self._end_tokens and not params[row].ignore_eos:
                self._finish(sequence, sequence.text.finish("stop"))
                continue
            chunk = sequence.push(token, logprobs.get(row))
            if chunk.finish_reason:
                self._finish(sequence, chunk)
            elif chunk.tokens or chunk.text:
                sequence.emit(chunk)

    def _finish(self, sequence: RunningSequence, chunk: Chunk) -> None:
        self._release(sequence)
        sequence.emit(chunk)

    def _release(self, sequence: RunningSequence) -> None:
        sequence.group.running.remove(sequence)
        self._runner.store.release(sequence.slot)
        self._runner.steering.release(sequence.steering_row)

    def _release_all(self, group: Group) -> None:
        group.waiting.clear()
        for sequence in list(group.running):
            self._release(sequence)

    def _fail(self, group: Group, error: EngineError) -> None:
        for sequence in group.running:
            self._runner.store.wipe(sequence.slot, len(sequence.tokens))
        self._release_all(group)
        group.report(0, error)

    def _fail_all(self, error: EngineError) -> None:
        with self._changed:
            groups, self._groups = self._groups, []
        for group in groups:
            self._fail(group, error)


def _decoder(loaded: LoadedModel) -> Callable[[Sequence[int]], str]:
    def decode(tokens: Sequence[int]) -> str:
        text = loaded.tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text)

    return decode


def _end_tokens(loaded: LoadedModel) -> frozenset[int]:
    configured = loaded.model.generation_config.eos_token_id if loaded.model.generation_config else None
    several = configured if isinstance(configured, list) else [configured]
    return frozenset(token for token in (*several, loaded.tokenizer.eos_token_id) if token is not None)
