"""The engine: a thread that runs one step after another over all running sequences."""

import math
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import NamedTuple

import structlog
from torch import Tensor

from steering_profiles.conditions import ConditionTrace
from steering_profiles.models import LoadedModel, ModelWithAnatomy
from steering_profiles.models.memory import return_freed_memory
from steering_profiles.tokenization import Vocabulary
from steering_server.engines.local.attention import refusal
from steering_server.engines.local.backlog import Backlog
from steering_server.engines.local.grammars.matching import Matcher, constrain
from steering_server.engines.local.graph_check import capture_if_possible
from steering_server.engines.local.invariance import ensure_invariance, rules_out_invariance
from steering_server.engines.local.kv_cache import bytes_per_token, padded_length
from steering_server.engines.local.penalties import adjust
from steering_server.engines.local.ragged import SequenceInput
from steering_server.engines.local.runner import Runner, SequenceOutput
from steering_server.engines.local.sampling import logprobs_of, sample
from steering_server.engines.local.scheduler import Budget, Scheduler
from steering_server.engines.local.sequence import Emit, Group, SequenceState
from steering_server.engines.local.slots import SlotPool
from steering_server.errors import ConfigError, EngineError, EngineStopped, GrammarTooComplex, Overloaded
from steering_server.generation.backend import EngineStats
from steering_server.generation.detokenizer import TextStream
from steering_server.generation.invariance import BatchInvariance
from steering_server.generation.requests import Chunk, GenerationRequest
from steering_server.limits import EngineLimits

DEFAULT_KV_CACHE_MEMORY = 2**30
"""Bytes."""
_LARGEST_SHARE = 0.9
"""Share of the queue's places, without those of other clients, that one client may take."""

_log = structlog.get_logger("steering_server.engine")


class Engine:
    """Runs sequences on one model. Thread-safe; output is reported from the engine's own thread."""

    def __init__(self, loaded: LoadedModel, limits: EngineLimits) -> None:
        """Prepare the model, which belongs to the engine until :meth:`close`.

        Raises:
            ConfigError: the engine cannot run this model within these limits, or there is not enough memory.
        """
        self._capacity = capacity(loaded, limits)
        self.max_length = self._capacity.max_length
        self._limits = limits
        self.vocabulary = Vocabulary(loaded.tokenizer)
        self.end_tokens = loaded.end_tokens
        self._bytes_per_token = bytes_per_token(loaded)
        self._changed = threading.Condition()
        self._backlog = Backlog()
        self._started = False
        self._closing = False
        prepared: Future[_Prepared] = Future()
        # All of the model's work is done in this one thread, even before the first step: every thread that computes
        # gets its own OpenMP pool, and two pools on the same cores halve each other's speed.
        self._thread = threading.Thread(target=self._run, args=(loaded, prepared), name="steering-engine", daemon=True)
        self._thread.start()
        self._runner, self._scheduler, self.batch_invariance, self.graphs_refused = prepared.result()

    def start(self) -> None:
        """Begin to run submitted sequences."""
        with self._changed:
            self._started = True
            self._changed.notify()

    def close(self) -> None:
        """Stop after the current step, fail all sequences with :class:`EngineStopped` and restore the model."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def submit(
        self,
        requests: Sequence[GenerationRequest],
        emit: Emit,
        client: str | None = None,
        matchers: Sequence[Matcher | None] = (),
        *,
        admitted: bool = False,
    ) -> Group:
        """Queue ``requests``, to run in one batch as far as there is room; their output goes to ``emit``.

        The queue is fair over ``client``, or over requests where that is None. ``matchers`` follow the requests'
        grammars; none need be given if no request has one.

        Raises:
            Overloaded: more sequences would wait than the limits allow, and these are not ``admitted``.
            EngineStopped: the engine is closing.
        """
        group = Group(emit, client)
        for index, (request, matcher) in enumerate(zip(requests, matchers or [None] * len(requests), strict=True)):
            sampling = request.sampling
            text = TextStream(
                self.vocabulary,
                request.prompt,
                sampling.stop,
                min_tokens=sampling.min_tokens,
                echoes=sampling.echoes,
            )
            group.waiting.append(SequenceState(group, index, request, text, matcher, self._trace_of(request)))
        with self._changed:
            if self._closing:
                raise EngineStopped
            if not admitted:
                self._require_room(len(requests), client)
            if not self._scheduler:
                self._backlog.work_began(time.monotonic())
            self._scheduler.add(group)
            self._changed.notify()
        return group

    def _trace_of(self, request: GenerationRequest) -> ConditionTrace | None:
        conditions = request.steering.conditions
        return ConditionTrace(conditions, self.vocabulary.bytes_of, len(request.prompt)) if conditions else None

    def cancel(self, group: Group) -> None:
        """Stop ``group`` before the next step, without further output."""
        with self._changed:
            group.cancelled = True
            self._changed.notify()

    def failure(self) -> str | None:
        """Return why nothing can run any more, None as long as it can: steps that fail do not end the engine."""
        return None if self._closing or self._thread.is_alive() else "the engine's thread has ended; see the log"

    def stats(self) -> EngineStats:
        """Return the engine's state. A step may change parts of it at the same time."""
        return self._scheduler.stats(self._bytes_per_token)

    def _require_room(self, new: int, client: str | None) -> None:
        queued, available = self._scheduler.waiting, self._scheduler.available
        room = self._limits.max_queue - queued
        if client is not None:
            # Some room is left for others, however much one client sends.
            own = self._scheduler.waiting_of(client)
            room = math.ceil(_LARGEST_SHARE * (room + own)) - own
        missing = new - room - available
        if missing <= 0:
            return
        whole = self._limits.max_queue + self._limits.max_num_seqs
        if new > whole:
            raise Overloaded(
                f"this request has {new} sequences, and the queue holds {whole}, running ones included; send fewer",
                retry_after=None,
            )
        running, now = self._limits.max_num_seqs - available, time.monotonic()
        seconds = self._backlog.promise(missing, running, now, most=self._backlog.wait(whole, running, now))
        raise Overloaded(
            f"the queue is full: {queued} sequences are waiting and this request would add {new}; "
            f"try again in {math.ceil(seconds)} s",
            retry_after=seconds,
        )

    def _run(self, loaded: LoadedModel, prepared: "Future[_Prepared]") -> None:
        try:
            ready = _prepare(loaded, self._limits, self._capacity)
        except BaseException as exc:  # raised again in the thread that waits
            prepared.set_exception(exc)
            return
        return_freed_memory()
        prepared.set_result(ready)
        self._loop(ready.scheduler)
        ready.scheduler.fail_all(EngineStopped())
        ready.runner.close()

    def _loop(self, scheduler: Scheduler) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closing or (self._started and scheduler))
                if self._closing:
                    return
                scheduler.drop_ended()
                if not scheduler:
                    continue
            try:
                scheduler.admit()
                self._step()
            except Exception as exc:  # any exception, so that no client waits for ever
                _log.exception("step_failed")
                with self._changed:
                    scheduler.fail_all(EngineError(f"the engine failed: {exc}"))

    def _step(self) -> None:
        planned = self._scheduler.plan()
        if not planned:
            return
        outputs = self._runner.run([computed for _, computed in planned])
        ready = self._process_outputs(planned, outputs)
        if ready:
            self._sample_next(ready, outputs[0].batch_logits)

    def _process_outputs(
        self, planned: Sequence[tuple[SequenceState, SequenceInput]], outputs: Sequence[SequenceOutput]
    ) -> list[tuple[SequenceState, int]]:
        """Record what was computed; return the sequences that get a token now, with their row of the logits."""
        ready = []
        for (sequence, computed), output in zip(planned, outputs, strict=True):
            if sequence.allocation is None:
                continue  # its group failed earlier in this loop
            if not output.finite:
                error = EngineError("the model's output is not finite; a lower strength may help")
                self._scheduler.fail(sequence.group, error)
                continue
            samples = sequence.advance(computed, output.logits)
            report = sequence.prompt_report()
            if report is not None:
                sequence.emit(report)
            if samples:
                ready.append((sequence, output.rows.stop - 1))
            elif sequence.is_scored_only:
                self._finish(sequence, Chunk(finish_reason="length"))
        return [(sequence, row) for sequence, row in ready if sequence.allocation is not None]

    def _sample_next(self, ready: Sequence[tuple[SequenceState, int]], logits: Tensor) -> None:
        """Sample one token for each of ``ready`` from its row of ``logits``, ``[rows, vocab]``, and report it."""
        sequences, rows = [sequence for sequence, _ in ready], [row for _, row in ready]
        if rows != list(range(len(logits))):
            logits = logits[rows]
        params = [sequence.request.sampling for sequence in sequences]
        adjusted = adjust(logits, params, [sequence.history for sequence in sequences], self.end_tokens)
        allowed = constrain(adjusted, [sequence.matcher for sequence in sequences])
        tokens = sample(allowed, params, [sequence.draw() for sequence in sequences])
        scored = [index for index, p in enumerate(params) if p.logprobs is not None]
        logprobs = dict(
            zip(
                scored,
                logprobs_of(
                    logits if len(scored) == len(logits) else logits[scored],
                    [tokens[index] for index in scored],
                    [params[index].logprobs or 0 for index in scored],
                ),
                strict=True,
            )
        )
        for index, (sequence, token) in enumerate(zip(sequences, tokens, strict=True)):
            if sequence.allocation is None:
                continue  # its group failed earlier in this loop
            is_end = token in params[index].stop_tokens or (token in self.end_tokens and not params[index].ignore_eos)
            try:
                chunk = sequence.push(token, logprobs.get(index), is_end=is_end)
            except GrammarTooComplex as exc:
                self._scheduler.fail(sequence.group, exc)
                continue
            if chunk.finish_reason:
                self._finish(sequence, chunk)
            elif chunk.tokens or chunk.text:
                sequence.emit(chunk)

    def _finish(self, sequence: SequenceState, chunk: Chunk) -> None:
        self._scheduler.release(sequence)
        self._backlog.finished(time.monotonic())
        sequence.emit(chunk)


@dataclass(frozen=True)
class Capacity:
    """Room of an engine for the sequences of one model."""

    max_length: int
    """Maximum tokens of one sequence."""
    kv_cache_tokens: int
    """Maximum tokens of all sequences in the KV cache."""


def capacity(loaded: ModelWithAnatomy, limits: EngineLimits) -> Capacity:
    """Return the capacity of an engine for a model within ``limits``; the model's weights need not be loaded.

    Raises:
        ConfigError: the model does not use transformers' attention interface, cannot be batch invariant where that is
            required, its context is shorter than the limits require, or the KV cache memory does not hold one
            sequence of full length.
    """
    reason = refusal(loaded.model, loaded.anatomy)
    if reason is not None:
        raise ConfigError(f"model {loaded.name} cannot be served: {reason}")
    if limits.batch_invariant == "require":
        _require_invariance(loaded, rules_out_invariance(loaded))
    context = loaded.context_length
    if limits.max_length is not None and limits.max_length > context:
        raise ConfigError(f"max_model_len is {limits.max_length}; {loaded.name} takes at most {context} tokens")
    length = limits.max_length or context
    return Capacity(length, _kv_cache_tokens(loaded, limits.kv_cache_memory, length))


class _Prepared(NamedTuple):
    runner: Runner
    scheduler: Scheduler
    batch_invariance: BatchInvariance
    graphs_refused: str | None
    """Why decoding steps are not captured as CUDA graphs; None where they are."""


def _prepare(loaded: LoadedModel, limits: EngineLimits, capacity: Capacity) -> _Prepared:
    runner = Runner(loaded, slots=_slots(loaded, limits, capacity), length=capacity.max_length)
    try:
        invariance = _batch_invariance(runner, loaded, limits)
        graphs_refused = capture_if_possible(runner, loaded, wanted=limits.cuda_graphs)
    except BaseException:
        runner.close()
        raise
    pool = SlotPool(runner.kv_cache, capacity.kv_cache_tokens, reuse=limits.prefix_cache)
    budget = Budget(limits.max_num_seqs, limits.max_num_batched_tokens, limits.max_num_batched_tokens_mixed)
    scheduler = Scheduler(pool, runner.steering.table, loaded.anatomy.sizes, budget)
    return _Prepared(runner, scheduler, invariance, graphs_refused)


def _batch_invariance(runner: Runner, loaded: LoadedModel, limits: EngineLimits) -> BatchInvariance:
    if limits.batch_invariant == "off":
        return BatchInvariance(False, "it was switched off (batch_invariant is off)")
    invariance = ensure_invariance(runner, loaded)
    if limits.batch_invariant == "require":
        _require_invariance(loaded, invariance.reason)
    return invariance


def _require_invariance(loaded: ModelWithAnatomy, reason_against: str | None) -> None:
    if reason_against is not None:
        raise ConfigError(f"batch_invariant is require, but {loaded.name} cannot be served so: {reason_against}")


def _kv_cache_tokens(loaded: ModelWithAnatomy, granted: int | None, length: int) -> int:
    """Return the number of tokens that ``granted`` bytes of KV cache hold.

    Raises:
        ConfigError: they hold less than one sequence of full length.
    """
    per_token, least = bytes_per_token(loaded), padded_length(loaded, length)
    if granted is None:
        granted = max(DEFAULT_KV_CACHE_MEMORY, least * per_token)
    if granted < least * per_token:
        raise ConfigError(
            f"kv_cache_memory is {granted / 2**20:.0f} MiB, but the KV cache of one sequence of {length} tokens takes "
            f"{least * per_token / 2**20:.0f} MiB; raise it or lower max_model_len"
        )
    return granted // per_token


def _slots(loaded: LoadedModel, limits: EngineLimits, capacity: Capacity) -> int:
    """Return the number of slots: one for each running sequence and as many again for the prefix cache."""
    wanted = 2 * limits.max_num_seqs
    if all(device.type == "cpu" for device in loaded.layer_devices):
        return wanted
    # Here a slot takes memory even when unused.
    return max(1, min(wanted, capacity.kv_cache_tokens // padded_length(loaded, capacity.max_length)))
