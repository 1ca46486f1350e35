"""The engine: a thread that runs one step after another over all running sequences."""

import threading
from collections.abc import Sequence
from concurrent.futures import Future

import structlog
from torch import Tensor

from steering_profiles.models import LoadedModel, ModelWithAnatomy
from steering_profiles.tokenization import Vocabulary
from steering_server.engines.local.attention import refusal
from steering_server.engines.local.invariance import ensure_invariance
from steering_server.engines.local.kv_cache import bytes_per_token, padded_length
from steering_server.engines.local.penalties import adjust
from steering_server.engines.local.ragged import SequenceInput
from steering_server.engines.local.runner import Runner, SequenceOutput
from steering_server.engines.local.sampling import logprobs_of, sample
from steering_server.engines.local.scheduler import Budget, Scheduler
from steering_server.engines.local.sequence import Emit, Group, SequenceState
from steering_server.engines.local.slots import SlotPool
from steering_server.errors import ConfigError, EngineError, EngineStopped, Overloaded
from steering_server.generation.detokenizer import TextStream
from steering_server.generation.invariance import BatchInvariance
from steering_server.generation.requests import Chunk, GenerationRequest
from steering_server.limits import EngineLimits

DEFAULT_KV_CACHE_MEMORY = 2**30
"""Bytes."""

_log = structlog.get_logger("steering_server.engine")


class Engine:
    """Runs sequences on one model. Thread-safe; output is reported from the engine's own thread."""

    def __init__(self, loaded: LoadedModel, limits: EngineLimits) -> None:
        """Prepare the model, which belongs to the engine until :meth:`close`.

        Raises:
            ConfigError: the engine cannot run this model within these limits, or there is not enough memory.
        """
        check(loaded, limits)
        self.max_length = limits.max_length or loaded.context_length
        self._limits = limits
        self.vocabulary = Vocabulary(loaded.tokenizer)
        self._end_tokens = loaded.end_tokens
        self._changed = threading.Condition()
        self._started = False
        self._closing = False
        prepared: Future[tuple[Runner, Scheduler, BatchInvariance]] = Future()
        # All of the model's work is done in this one thread, even before the first step: every thread that computes
        # gets its own OpenMP pool, and two pools on the same cores halve each other's speed.
        self._thread = threading.Thread(target=self._run, args=(loaded, prepared), name="steering-engine", daemon=True)
        self._thread.start()
        self._runner, self._scheduler, self.batch_invariance = prepared.result()

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

    def submit(self, requests: Sequence[GenerationRequest], emit: Emit) -> Group:
        """Queue ``requests``, to run in one batch as far as there is room; their output goes to ``emit``.

        Raises:
            Overloaded: more sequences would wait than the limits allow.
            EngineStopped: the engine is closing.
        """
        group = Group(emit)
        for index, request in enumerate(requests):
            sampling = request.sampling
            text = TextStream(
                self.vocabulary,
                request.prompt,
                sampling.stop,
                min_tokens=sampling.min_tokens,
                echoes=sampling.echoes,
            )
            group.waiting.append(SequenceState(group, index, request, text))
        with self._changed:
            if self._closing:
                raise EngineStopped
            queued = self._scheduler.waiting
            if queued + len(requests) > self._limits.max_queue + self._scheduler.available:
                raise Overloaded(
                    f"{queued} sequences are waiting, of {self._limits.max_queue} allowed, and this request would "
                    f"add {len(requests)}; try again later"
                )
            self._scheduler.add(group)
            self._changed.notify()
        return group

    def cancel(self, group: Group) -> None:
        """Stop ``group`` before the next step, without further output."""
        with self._changed:
            group.cancelled = True
            self._changed.notify()

    def _run(self, loaded: LoadedModel, prepared: "Future[tuple[Runner, Scheduler, BatchInvariance]]") -> None:
        try:
            runner, scheduler, invariance = _prepare(loaded, self._limits, self.max_length)
        except BaseException as exc:  # raised again in the thread that waits
            prepared.set_exception(exc)
            return
        prepared.set_result((runner, scheduler, invariance))
        self._loop(scheduler)
        scheduler.fail_all(EngineStopped())
        runner.close()

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
        adjusted = adjust(logits, params, [sequence.history for sequence in sequences], self._end_tokens)
        tokens = sample(adjusted, params, [sequence.draw() for sequence in sequences])
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
            is_end = token in self._end_tokens and not params[index].ignore_eos
            chunk = sequence.push(token, logprobs.get(index), is_end=is_end)
            if chunk.finish_reason:
                self._finish(sequence, chunk)
            elif chunk.tokens or chunk.text:
                sequence.emit(chunk)

    def _finish(self, sequence: SequenceState, chunk: Chunk) -> None:
        self._scheduler.release(sequence)
        sequence.emit(chunk)


def check(loaded: ModelWithAnatomy, limits: EngineLimits) -> None:
    """Check that the engine can run a model within ``limits``; its weights need not be loaded.

    Raises:
        ConfigError: the model does not use transformers' attention interface, its context is shorter than the limits
            require, or the KV cache memory does not hold one sequence of full length.
    """
    reason = refusal(loaded.model, loaded.anatomy)
    if reason is not None:
        raise ConfigError(f"model {loaded.name} cannot be served: {reason}")
    context = loaded.context_length
    if limits.max_length is not None and limits.max_length > context:
        raise ConfigError(f"max_model_len is {limits.max_length}; {loaded.name} takes at most {context} tokens")
    _capacity(loaded, limits.kv_cache_memory, limits.max_length or context)


def _prepare(loaded: LoadedModel, limits: EngineLimits, length: int) -> tuple[Runner, Scheduler, BatchInvariance]:
    capacity = _capacity(loaded, limits.kv_cache_memory, length)
    runner = Runner(loaded, slots=_slots(loaded, limits, capacity, length), length=length)
    try:
        invariance = _batch_invariance(runner, loaded, limits)
    except BaseException:
        runner.close()
        raise
    pool = SlotPool(runner.kv_cache, capacity, reuse=limits.prefix_cache)
    budget = Budget(limits.max_num_seqs, limits.max_num_batched_tokens, limits.max_num_batched_tokens_mixed)
    return runner, Scheduler(pool, runner.steering.table, loaded.anatomy.sizes, budget), invariance


def _batch_invariance(runner: Runner, loaded: LoadedModel, limits: EngineLimits) -> BatchInvariance:
    if limits.batch_invariant == "off":
        return BatchInvariance(False, "it was switched off (batch_invariant is off)")
    invariance = ensure_invariance(runner, loaded)
    if limits.batch_invariant == "require" and not invariance.holds:
        raise ConfigError(f"batch_invariant is require, but {loaded.name} cannot be served so: {invariance.reason}")
    return invariance


def _capacity(loaded: ModelWithAnatomy, granted: int | None, length: int) -> int:
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


def _slots(loaded: LoadedModel, limits: EngineLimits, capacity: int, length: int) -> int:
    """Return the number of slots: one for each running sequence and as many again for the prefix cache."""
    wanted = 2 * limits.max_num_seqs
    if all(device.type == "cpu" for device in loaded.layer_devices):
        return wanted
    return max(1, min(wanted, capacity // padded_length(loaded, length)))  # here a slot takes memory even when unused
