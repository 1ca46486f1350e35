"""Which sequence's state lies in which slot, how much memory that takes, and what of it others can use.

A slot that is given back keeps its state until its place or its memory is needed. A new sequence takes over what is
already there of its own beginning, if the state was computed under the same steering: a state key names that, so that
no row reads what another steering made.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from steering_profiles.steering import KVCacheKey
from steering_server.engines.local.kv import KVStore

MIN_SHARED = 8
"""Tokens of common beginning below which nothing is shared: computing them costs less than looking after them."""


@dataclass(eq=False)
class Slot:
    """The state of one sequence, running or over."""

    index: int
    tokens: list[int] = field(default_factory=list)
    """The sequence; of a running one it is the sequence's own list, which grows."""
    computed: int = 0
    """Of how many of ``tokens``, from the first on, the state is there."""
    key: KVCacheKey = ()
    committed: int = 0
    """Tokens that it takes memory for."""
    used: int = 0
    """When it was last given back; the smallest is the longest ago."""


class SlotPool:
    """The slots of a store, and a grant of memory that they share: ``capacity`` tokens."""

    def __init__(self, store: KVStore, capacity: int, *, reuse: bool = True) -> None:
        self._store = store
        self._capacity = capacity
        self._reuse = reuse
        self._free = [Slot(index) for index in range(store.slots)]
        self._running: list[Slot] = []
        self._clock = 0

    @property
    def free_tokens(self) -> int:
        """How many tokens there is memory for, besides those of running sequences."""
        return self._capacity - sum(slot.committed for slot in self._running)

    def has_room(self, length: int) -> bool:
        """Whether there is a slot, with memory for ``length`` tokens."""
        return bool(self._free) and self._blocks(length) <= self.free_tokens

    def acquire(self, tokens: list[int], key: KVCacheKey, most_shared: int) -> tuple[Slot, Slot | None, int]:
        """Take a slot with memory for ``tokens``.

        Returns the slot, the running slot, if any, whose sequence begins with the same tokens, and how many of those
        are to be copied from there, at most ``most_shared``. What a free slot has of them is there already.

        Raises:
            RuntimeError: there is no room.
        """
        if not self.has_room(len(tokens)):
            raise RuntimeError(f"there is no room for a sequence of {len(tokens)} tokens")
        needed = self._blocks(len(tokens))
        kept, kept_length = self._best(self._free, tokens, key, most_shared)
        running, running_length = self._best(self._running, tokens, key, most_shared)
        in_place = kept is not None and kept_length >= running_length
        slot = (
            kept if kept is not None and in_place else min(self._free, key=lambda free: (free.computed > 0, free.used))
        )
        self._free.remove(slot)
        if not in_place and slot.committed > needed:
            self._drop(slot)  # else it would hold more than it was granted
        slot.tokens, slot.key, slot.computed = tokens, key, kept_length if in_place else 0
        self._running.append(slot)
        self.grow(slot, len(tokens))
        return slot, None if in_place else running, 0 if in_place else running_length

    def grow(self, slot: Slot, length: int) -> bool:
        """See that there is memory for ``length`` tokens of a running slot, at the cost of what free ones keep."""
        needed = self._blocks(length)
        if needed <= slot.committed:
            return True
        if self.free_tokens + slot.committed < needed:
            return False
        slot.committed = needed
        while self.free_tokens < sum(free.committed for free in self._free):
            self._drop(min((free for free in self._free if free.committed), key=lambda free: free.used))
        return True

    def copy(self, source: Slot, target: Slot, end: int) -> None:
        """Bring ``target``, which begins as ``source`` does, up to ``end`` computed tokens."""
        self._store.copy(source.index, target.index, target.computed, end)
        target.computed = end

    def release(self, slot: Slot, *, keep: bool = True) -> None:
        """Give a slot back; its state is kept for others as long as there is room, unless it is not to be."""
        self._running.remove(slot)
        self._free.append(slot)
        self._clock += 1
        slot.used = self._clock
        slot.tokens = slot.tokens[: slot.computed]
        if not keep or not self._reuse:
            slot.tokens, slot.computed = [], 0
        if not keep:
            self._drop(slot)

    def _best(
        self, slots: Sequence[Slot], tokens: Sequence[int], key: KVCacheKey, most: int
    ) -> tuple[Slot | None, int]:
        """Return the slot with the longest beginning in common with ``tokens``, and its length."""
        best, length = None, MIN_SHARED - 1
        for slot in slots if self._reuse else ():
            if slot.key == key and (shared := min(most, common_length(slot.tokens, tokens))) > length:
                best, length = slot, shared
        return best, length if best is not None else 0

    def _blocks(self, tokens: int) -> int:
        return -(-tokens // self._store.block) * self._store.block

    def _drop(self, slot: Slot) -> None:
        self._store.discard(slot.index)
        slot.tokens, slot.computed, slot.committed = [], 0, 0


def common_length(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many tokens two sequences have in common from the first on."""
    low, high = 0, min(len(one), len(other))
    if one[:MIN_SHARED] != other[:MIN_SHARED] and high >= MIN_SHARED:
        return 0  # most of them, and little enough of it not to matter
    while low < high:  # slices are compared much faster than tokens
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
