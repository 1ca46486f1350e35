"""The scheduler: which sequences run, which wait, and the tokens of the next step.

A step computes one token of every sequence that generates and prompt chunks of the others. The next sequence to start
belongs to the client with the fewest running sequences and, of that client's groups, to the one with the fewest; among
equals the oldest group comes first. A client for whom there is no room takes the place of one that has at least two
more. Where memory for the KV cache runs out, the youngest sequence is preempted. A preempted sequence waits again and
keeps the tokens it has generated.
"""

import time
from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace

from steering_profiles.models import Sizes
from steering_profiles.steering import SteeringTable, TokenRows, divergence_layer, kv_cache_key
from steering_server.engines.local.ragged import Divergence, SequenceInput
from steering_server.engines.local.sequence import Allocation, Group, SequenceState
from steering_server.engines.local.slots import SlotPool
from steering_server.errors import EngineError
from steering_server.generation.backend import EngineStats

_DOUBLE_COST_POSITION = 1024
"""Position at which a prompt token costs about twice as much as the first, since it attends to all tokens before it."""


@dataclass(frozen=True)
class Budget:
    """Limits of one step."""

    max_num_seqs: int
    """Sequences that run at the same time."""
    max_num_batched_tokens: float
    """Prompt tokens in a step in which no sequence generates. Tokens far into a prompt count as more than one."""
    max_num_batched_tokens_mixed: float
    """The same in a step in which other sequences generate and wait for its end."""


class Scheduler:
    """The groups of an engine. Only the engine's thread may use it, except for :attr:`waiting` and :meth:`stats`."""

    def __init__(self, pool: SlotPool, steering_table: SteeringTable, sizes: Sizes, budget: Budget) -> None:
        self._pool = pool
        self._steering_table = steering_table
        self._sizes = sizes
        self._budget = budget
        self._groups: list[Group] = []
        self._preemptions = 0
        self._prefix_cache_queries = 0
        self._prefix_cache_hits = 0

    def __bool__(self) -> bool:
        return bool(self._groups)

    @property
    def waiting(self) -> int:
        """Number of waiting sequences."""
        return sum(len(group.waiting) for group in self._groups)

    def waiting_of(self, client: str) -> int:
        """Return the number of waiting sequences of ``client``."""
        return sum(len(group.waiting) for group in list(self._groups) if group.client == client)

    @property
    def available(self) -> int:
        """Number of further sequences that may run."""
        return self._budget.max_num_seqs - self._running

    @property
    def _running(self) -> int:
        return sum(len(group.running) for group in self._groups)

    def stats(self, bytes_per_token: int) -> EngineStats:
        """Return the state, with ``bytes_per_token`` of KV cache."""
        pool = self._pool
        return EngineStats(
            running=self._running,
            waiting=self.waiting,
            preemptions=self._preemptions,
            kv_cache_running=(pool.capacity - pool.free_tokens) * bytes_per_token,
            kv_cache_kept=pool.kept_tokens * bytes_per_token,
            kv_cache_capacity=pool.capacity * bytes_per_token,
            prefix_cache_queries=self._prefix_cache_queries,
            prefix_cache_hits=self._prefix_cache_hits,
        )

    def add(self, group: Group) -> None:
        """Add a new group to the queue."""
        for sequence in group.waiting:
            sequence.request.timeline.queued_at = time.monotonic()
        self._groups.append(group)

    def drop_ended(self) -> None:
        """Remove groups that are finished or cancelled."""
        for group in self._groups:
            if group.cancelled:
                self.release_all(group)
        self._groups = [group for group in self._groups if group.waiting or group.running]

    def admit(self) -> None:
        """Start waiting sequences, in order, while there is room for the next one."""
        while True:
            group = self._next_group()
            if group is None:
                return
            while not self._has_room(group):
                rival = self._richer_rival(group)
                if rival is None:
                    return
                self._preempt(rival)
            sequence = group.waiting[0]
            sequence.start(self._allocate(sequence))
            group.waiting.popleft()
            group.running.append(sequence)

    def _next_group(self) -> Group | None:
        """Return the group whose sequence starts next, if any waits."""
        running = self._running_by_client()
        groups = [group for group in self._groups if group.waiting]
        return min(groups, key=lambda one: (running[_client(one)], len(one.running)), default=None)

    def _has_room(self, group: Group) -> bool:
        return self.available > 0 and self._pool.has_room(len(group.waiting[0].tokens))

    def _richer_rival(self, group: Group) -> SequenceState | None:
        """Return the youngest sequence of the client that runs most, if it runs at least two more than this group's."""
        if group.client is None:
            return None
        running = self._running_by_client()
        richest = max(running, key=running.__getitem__, default=None)
        if richest is None or running[richest] < running[group.client] + 2:
            return None
        return [one for each in self._groups if _client(each) == richest for one in each.running][-1]

    def _running_by_client(self) -> Counter[Hashable]:
        counts: Counter[Hashable] = Counter()
        for group in self._groups:
            counts[_client(group)] += len(group.running)
        return counts

    def plan(self) -> list[tuple[SequenceState, SequenceInput]]:
        """Choose the tokens of the next step."""
        running = [sequence for group in self._groups for sequence in group.running]
        generating = [sequence for sequence in running if sequence.remaining <= 1]
        prompts = _in_turns(one for one in running if one.remaining > 1 and self._is_ready(one))
        budget = self._budget.max_num_batched_tokens_mixed if generating else self._budget.max_num_batched_tokens
        planned: dict[SequenceState, SequenceInput] = {}
        for sequence in generating:
            if sequence.allocation is None:
                continue  # it was preempted for an earlier one
            self._plan(planned, sequence, sequence.next_input(1))
        for sequence in prompts:
            if sequence.allocation is None or sequence in planned:
                continue
            if budget <= 0:
                break
            diverging = [one for one in prompts if _lower_layers_source(one) is sequence]
            cost = (1 + len(diverging)) * (1 + sequence.computed / _DOUBLE_COST_POSITION)
            chunk = sequence.next_input(max(1, int(budget / cost)))
            self._plan(planned, sequence, chunk)
            budget -= len(chunk.tokens) * cost
            for other in diverging:
                if other.allocation is not None and _lower_layers_source(other) is sequence:
                    divergence = Divergence(other.allocation.divergence_layer, chunk.slot)
                    self._plan(planned, other, replace(other.next_input(len(chunk.tokens)), divergence=divergence))
        # A sequence may have been preempted for a later one after it was planned.
        return [(sequence, chunk) for sequence, chunk in planned.items() if sequence.allocation is not None]

    def release(self, sequence: SequenceState, *, keep: bool = True) -> None:
        """Stop running a sequence; its KV cache stays available to others unless ``keep`` is false."""
        allocation = sequence.allocated
        sequence.group.running.remove(sequence)
        for other in (one for group in self._groups for one in group.running):
            if other.allocated.lower_layers_source is sequence:
                other.allocated.lower_layers_source = None
            if other.allocated.prefix_source is sequence:
                if keep:
                    self._copy_prefix(other.allocated, allocation)
                other.allocated.prefix_source = None
        self._pool.release(allocation.slot, keep=keep)
        allocation.rows.release()
        if allocation.open_rows is not None:
            allocation.open_rows.release()
        sequence.allocation = None

    def release_all(self, group: Group, *, keep: bool = True) -> None:
        """Stop all sequences of a group, running or waiting."""
        group.waiting.clear()
        for sequence in list(group.running):
            self.release(sequence, keep=keep)

    def fail(self, group: Group, error: EngineError) -> None:
        """End a group with an error. Its KV cache may be wrong and is not kept."""
        self.release_all(group, keep=False)
        group.report(0, error)

    def fail_all(self, error: EngineError) -> None:
        """End all groups with an error."""
        groups, self._groups = self._groups, []
        for group in groups:
            if group.waiting or group.running:
                self.fail(group, error)

    def _allocate(self, sequence: SequenceState) -> Allocation:
        steering = sequence.request.steering
        rows = TokenRows(self._steering_table, steering.closed)
        open_rows = None if steering.gate is None else TokenRows(self._steering_table, steering.opened)
        key = kv_cache_key(steering, self._sizes, len(sequence.request.prompt))
        slot, prefix_slot, prefix_length = self._pool.acquire(sequence.tokens, key, sequence.max_shared)
        if self._pool.reuses and not sequence.has_run:  # a preempted one would find itself
            self._prefix_cache_queries += len(sequence.tokens)
            self._prefix_cache_hits += max(slot.computed, prefix_length)
        allocation = Allocation(slot, rows, steering.gate, open_rows)
        if prefix_slot is not None:
            allocation.prefix_source = self._owner(prefix_slot)
            allocation.prefix_length = prefix_length
        elif slot.computed == 0:
            allocation.lower_layers_source, allocation.divergence_layer = self._find_lower_layers_source(sequence)
        return allocation

    def _owner(self, slot: object) -> SequenceState:
        return next(one for group in self._groups for one in group.running if one.allocated.slot is slot)

    def _find_lower_layers_source(self, sequence: SequenceState) -> tuple[SequenceState | None, int]:
        """Return the sequence of the group, with the same prompt, that diverges latest, and the layer where it does."""
        candidates = [
            other
            for other in sequence.group.running
            if other.tokens == sequence.tokens and len(other.request.prompt) == len(sequence.request.prompt)
            if other.computed == 0 and other.allocated.is_independent
        ]
        layers = [
            divergence_layer(other.request.steering, sequence.request.steering, self._sizes) for other in candidates
        ]
        best = max(range(len(layers)), key=layers.__getitem__, default=None)
        if best is None or layers[best] == 0:
            return None, 0
        return candidates[best], min(layers[best], self._sizes.layers - 1)

    def _is_ready(self, sequence: SequenceState) -> bool:
        """Copy what its prefix source has computed by now; return whether the sequence can be planned.

        Sequences that share lower layers are planned together while both have computed the same number of tokens.
        """
        allocation = sequence.allocated
        if allocation.prefix_source is not None:
            self._copy_prefix(allocation, allocation.prefix_source.allocated)
            if allocation.slot.computed < allocation.prefix_length:
                return False
            allocation.prefix_source = None
        source = allocation.lower_layers_source
        if source is not None and source.computed != allocation.slot.computed:
            allocation.lower_layers_source = None
        return True

    def _copy_prefix(self, allocation: Allocation, source: Allocation) -> None:
        computed = min(allocation.prefix_length, source.slot.computed)
        if computed > allocation.slot.computed:
            self._pool.copy(source.slot, allocation.slot, computed)

    def _plan(self, planned: dict[SequenceState, SequenceInput], sequence: SequenceState, chunk: SequenceInput) -> None:
        """Plan ``chunk``; while memory is short, preempt the youngest sequence, which may be ``sequence`` itself."""
        while sequence.allocation is not None:
            if self._pool.grow(sequence.allocation.slot, chunk.position + len(chunk.tokens)):
                planned[sequence] = chunk
                return
            self._preempt(self._youngest())

    def _youngest(self) -> SequenceState:
        """Return the youngest sequence of the client that runs most, so that none is preempted for a greedier one."""
        running = [sequence for group in self._groups for sequence in group.running]
        counts = Counter(sequence.group.client for sequence in running)
        most = max(counts.values())
        return [sequence for sequence in running if counts[sequence.group.client] == most][-1]

    def _preempt(self, sequence: SequenceState) -> None:
        self.release(sequence)
        self._preemptions += 1
        sequence.group.waiting.appendleft(sequence)


def _lower_layers_source(sequence: SequenceState) -> SequenceState | None:
    return None if sequence.allocation is None else sequence.allocation.lower_layers_source


def _client(group: Group) -> Hashable:
    """Return whom a group counts for: its client or, without one, itself."""
    return id(group) if group.client is None else group.client


def _in_turns(sequences: Iterable[SequenceState]) -> list[SequenceState]:
    """Return the sequences with clients taking turns, so that nobody waits for all prompts of another."""
    turns: Counter[str | None] = Counter()
    ranked = []
    for sequence in sequences:
        ranked.append((turns[sequence.group.client], sequence))
        turns[sequence.group.client] += 1
    return [sequence for _, sequence in sorted(ranked, key=lambda pair: pair[0])]
