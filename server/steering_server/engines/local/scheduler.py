"""Who runs, who waits, and what the next step computes.

A step takes one token of every sequence that generates, and fills up with pieces of prompts. Sequences wait in turn:
the request with the fewest running goes first, then the one that came first. Where memory for keys and values runs out,
the youngest sequence gives its place back and waits again; what it had generated it keeps.
"""

from dataclasses import dataclass, replace

from steering_profiles.models import Sizes
from steering_profiles.steering import SteeringHandle, divergence_layer, kv_cache_key, split
from steering_server.engines.local.packed import Fork, Opened, RowInput
from steering_server.engines.local.sequence import Group, Place, SequenceState
from steering_server.engines.local.slots import SlotPool
from steering_server.errors import EngineError

DOUBLE = 1024
"""Position at which a prompt's token costs about twice what the first does, since it attends to all before it."""


@dataclass(frozen=True)
class Budget:
    """How much is computed at a time."""

    sequences: int
    """That run at the same time."""
    tokens: float
    """Of prompts, in a step in which nothing is generated; fewer of those far into a prompt, which cost more."""
    tokens_beside: float
    """The same, in a step in which others get their next token and wait for its end."""


class Scheduler:
    """The groups of an engine. Used by the engine's thread alone, save for :meth:`waiting`."""

    def __init__(self, pool: SlotPool, steering: SteeringHandle, sizes: Sizes, budget: Budget) -> None:
        self._pool = pool
        self._steering = steering
        self._sizes = sizes
        self._budget = budget
        self._groups: list[Group] = []

    def __bool__(self) -> bool:
        return bool(self._groups)

    @property
    def waiting(self) -> int:
        """How many sequences wait for a place."""
        return sum(len(group.waiting) for group in self._groups)

    @property
    def places(self) -> int:
        """How many more sequences could run."""
        return self._budget.sequences - sum(len(group.running) for group in self._groups)

    def add(self, group: Group) -> None:
        """Let a new group wait."""
        self._groups.append(group)

    def drop_ended(self) -> None:
        """Forget groups that are over or cancelled."""
        for group in self._groups:
            if group.cancelled:
                self.release_all(group)
        self._groups = [group for group in self._groups if group.waiting or group.running]

    def admit(self) -> None:
        """Let sequences begin to run while there is room for the one whose turn it is."""
        while self.places > 0:
            groups = [group for group in self._groups if group.waiting]
            if not groups:
                return
            group = min(groups, key=lambda one: len(one.running))
            if not self._pool.has_room(len(group.waiting[0].tokens)):
                return
            sequence = group.waiting[0]
            sequence.start(self._find_place(sequence))
            group.waiting.popleft()
            group.running.append(sequence)

    def plan(self) -> list[tuple[SequenceState, RowInput]]:
        """Choose the tokens of the next step."""
        running = [sequence for group in self._groups for sequence in group.running]
        generating = [sequence for sequence in running if sequence.remaining <= 1]
        prompts = [sequence for sequence in running if sequence.remaining > 1 and self._catch_up(sequence)]
        most = self._budget.tokens_beside if generating else self._budget.tokens
        planned: dict[SequenceState, RowInput] = {}
        for sequence in generating:
            if sequence.place is None:
                continue  # it had to make room for one before it
            self._put(planned, sequence, sequence.next_input(1))
        for sequence in prompts:
            if sequence.place is None or sequence in planned:
                continue
            if most <= 0:
                break
            followers = [one for one in prompts if one.place is not None and one.place.leader is sequence]
            weight = (1 + len(followers)) * (1 + sequence.computed / DOUBLE)
            row = sequence.next_input(max(1, int(most / weight)))
            self._put(planned, sequence, row)
            most -= len(row.tokens) * weight
            for follower in followers:
                if follower.place is not None and follower.place.leader is sequence:
                    beside = follower.next_input(len(row.tokens))
                    self._put(planned, follower, replace(beside, fork=Fork(follower.place.fork, row.slot)))
        # One that was put in may have lost its place to a later one.
        return [(sequence, row) for sequence, row in planned.items() if sequence.place is not None]

    def release(self, sequence: SequenceState, *, keep: bool = True) -> None:
        """Take a sequence out of the running batch; ``keep`` what was computed for others to use."""
        place = sequence.running
        sequence.group.running.remove(sequence)
        for other in (one for group in self._groups for one in group.running):
            if other.running.leader is sequence:
                other.running.leader = None
            if other.running.source is sequence:
                if keep:
                    self._copy_ready(other.running, place)
                other.running.source = None
        self._pool.release(place.slot, keep=keep)
        self._steering.release(place.steering_row)
        if place.opened is not None:
            self._steering.release(place.opened.steering_row)
        sequence.place = None

    def release_all(self, group: Group, *, keep: bool = True) -> None:
        """Take all of a group out of the running batch and the queue."""
        group.waiting.clear()
        for sequence in list(group.running):
            self.release(sequence, keep=keep)

    def fail(self, group: Group, error: EngineError) -> None:
        """End a group with an error. What was computed for it may be wrong, and is kept for nobody."""
        self.release_all(group, keep=False)
        group.report(0, error)

    def fail_all(self, error: EngineError) -> None:
        """End everything with an error."""
        groups, self._groups = self._groups, []
        for group in groups:
            if group.waiting or group.running:
                self.fail(group, error)

    def _find_place(self, sequence: SequenceState) -> Place:
        steering = sequence.request.steering
        gated = split(steering)
        row = self._steering.acquire(steering if gated is None else gated.closed)
        opened = None if gated is None else Opened(gated.gate, self._steering.acquire(gated.opened))
        slot, source_slot, shared = self._pool.acquire(
            sequence.tokens, kv_cache_key(steering, self._sizes), sequence.most_shared
        )
        place = Place(slot, row, opened)
        if source_slot is not None:
            place.source = self._owner(source_slot)
            place.source_length = shared
        elif slot.computed == 0:
            place.leader, place.fork = self._leader(sequence)
        return place

    def _owner(self, slot: object) -> SequenceState:
        return next(one for group in self._groups for one in group.running if one.running.slot is slot)

    def _leader(self, sequence: SequenceState) -> tuple[SequenceState | None, int]:
        """Return who of the same group computes the same prompt, and the layer from which on it differs."""
        candidates = [
            other
            for other in sequence.group.running
            if other.tokens == sequence.tokens and other.computed == 0 and _is_independent(other.running)
        ]
        forks = [
            divergence_layer(other.request.steering, sequence.request.steering, self._sizes) for other in candidates
        ]
        best = max(range(len(forks)), key=forks.__getitem__, default=None)
        if best is None or forks[best] == 0:
            return None, 0
        return candidates[best], min(forks[best], self._sizes.layers - 1)

    def _catch_up(self, sequence: SequenceState) -> bool:
        """Copy what the sequence's source has computed by now; return whether that was all there is to wait for.

        A follower goes with its leader and is not to be planned by itself.
        """
        place = sequence.running
        if place.source is not None:
            self._copy_ready(place, place.source.running)
            if place.slot.computed < place.source_length:
                return False
            place.source = None
        if place.leader is not None and place.leader.computed != place.slot.computed:
            place.leader = None  # it goes alone from here
        return True

    def _copy_ready(self, place: Place, source: Place) -> None:
        ready = min(place.source_length, source.slot.computed)
        if ready > place.slot.computed:
            self._pool.copy(source.slot, place.slot, ready)

    def _put(self, planned: dict[SequenceState, RowInput], sequence: SequenceState, row: RowInput) -> None:
        """Plan ``row``, if need be at the cost of the youngest, which may be ``sequence`` itself."""
        while sequence.place is not None:
            if self._pool.grow(sequence.place.slot, row.position + len(row.tokens)):
                planned[sequence] = row
                return
            self._preempt(self._youngest())

    def _youngest(self) -> SequenceState:
        return [sequence for group in self._groups for sequence in group.running][-1]

    def _preempt(self, sequence: SequenceState) -> None:
        self.release(sequence)
        sequence.group.waiting.appendleft(sequence)


def _is_independent(place: Place) -> bool:
    return place.source is None and place.leader is None
