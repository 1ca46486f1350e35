"""Allocation of KV cache slots to sequences, the memory that they take, and their reuse as a prefix cache.

A slot that is released keeps its content until the slot or its memory is needed. A new sequence takes over the part of
its prompt that is cached already, if it was computed under the same steering: the slot's key names the steering, so a
sequence never reads what another steering has computed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from steering_profiles.steering import KVCacheKey
from steering_server.engines.local.kv_cache import KVCache

MIN_SHARED = 8
"""Number of tokens in a shared prefix below which it is not reused, since copying would cost more than computing."""


@dataclass(eq=False)
class CacheSlot:
    """The KV cache of one sequence, running or finished."""

    index: int
    tokens: list[int] = field(default_factory=list)
    """The tokens of the sequence. For a running one this is the sequence's own list, which grows."""
    computed: int = 0
    """Number of ``tokens``, from the first on, that are in the KV cache."""
    key: KVCacheKey = ()
    committed: int = 0
    """Number of tokens that memory is committed for."""
    released_at: int = 0
    """Logical time of the last release; the smallest is the least recent."""


class SlotPool:
    """The slots of a KV cache, which share memory for ``capacity`` tokens."""

    def __init__(self, kv_cache: KVCache, capacity: int, *, reuse: bool = True) -> None:
        self._kv_cache = kv_cache
        self._capacity = capacity
        self._reuse = reuse
        self._free = [CacheSlot(index) for index in range(kv_cache.slots)]
        self._running: list[CacheSlot] = []
        self._clock = 0

    @property
    def free_tokens(self) -> int:
        """Number of tokens that there is memory for, besides those of running sequences."""
        return self._capacity - sum(slot.committed for slot in self._running)

    @property
    def capacity(self) -> int:
        """Number of tokens that there is memory for in all."""
        return self._capacity

    @property
    def kept_tokens(self) -> int:
        """Number of tokens that memory is committed for in free slots, which keep the content of finished sequences."""
        return sum(slot.committed for slot in self._free)

    @property
    def reuses(self) -> bool:
        """Whether sequences take over what others have computed."""
        return self._reuse

    def has_room(self, length: int) -> bool:
        """Return whether there is a free slot and memory for ``length`` tokens."""
        return bool(self._free) and self._in_blocks(length) <= self.free_tokens

    def acquire(self, tokens: list[int], key: KVCacheKey, max_shared: int) -> tuple[CacheSlot, CacheSlot | None, int]:
        """Allocate a slot with memory for ``tokens``.

        Returns the slot, the running slot to copy a shared prefix from (or None), and the length of that prefix, at
        most ``max_shared``. A prefix found in a free slot is in the returned slot already.

        Raises:
            RuntimeError: there is no room.
        """
        if not self.has_room(len(tokens)):
            raise RuntimeError(f"there is no room for a sequence of {len(tokens)} tokens")
        needed = self._in_blocks(len(tokens))
        kept, kept_length = self._longest_prefix(self._free, tokens, key, max_shared)
        running, running_length = self._longest_prefix(self._running, tokens, key, max_shared)
        in_place = kept is not None and kept_length >= running_length
        if kept is not None and in_place:
            slot = kept
        else:
            slot = min(self._free, key=lambda free: (free.computed > 0, free.released_at))
        self._free.remove(slot)
        if not in_place and slot.committed > needed:
            self._drop(slot)  # else it would hold more than it was granted
        slot.tokens, slot.key, slot.computed = tokens, key, kept_length if in_place else 0
        self._running.append(slot)
        self.grow(slot, len(tokens))
        return slot, None if in_place else running, 0 if in_place else running_length

    def grow(self, slot: CacheSlot, length: int) -> bool:
        """Commit memory for ``length`` tokens of a running slot; return whether there was enough.

        Where needed, the content of free slots is dropped, least recent first.
        """
        needed = self._in_blocks(length)
        if needed <= slot.committed:
            return True
        if self.free_tokens + slot.committed < needed:
            return False
        slot.committed = needed
        while self.free_tokens < sum(free.committed for free in self._free):
            self._drop(min((free for free in self._free if free.committed), key=lambda free: free.released_at))
        return True

    def copy(self, source: CacheSlot, target: CacheSlot, end: int) -> None:
        """Copy the tokens up to ``end`` that ``target`` has not computed yet from ``source``, which has the same."""
        self._kv_cache.copy(source.index, target.index, target.computed, end)
        target.computed = end

    def release(self, slot: CacheSlot, *, keep: bool = True) -> None:
        """Free a slot. Its content stays available to others while there is room, unless ``keep`` is false."""
        self._running.remove(slot)
        self._free.append(slot)
        self._clock += 1
        slot.released_at = self._clock
        slot.tokens = slot.tokens[: slot.computed]
        if not keep or not self._reuse:
            slot.tokens, slot.computed = [], 0
        if not keep:
            self._drop(slot)

    def _longest_prefix(
        self, slots: Sequence[CacheSlot], tokens: Sequence[int], key: KVCacheKey, max_shared: int
    ) -> tuple[CacheSlot | None, int]:
        """Return the slot that shares the longest prefix with ``tokens``, and the prefix's length."""
        best, length = None, MIN_SHARED - 1
        for slot in slots if self._reuse else ():
            if slot.key == key and (shared := min(max_shared, common_length(slot.tokens, tokens))) > length:
                best, length = slot, shared
        return best, length if best is not None else 0

    def _in_blocks(self, tokens: int) -> int:
        return -(-tokens // self._kv_cache.block_size) * self._kv_cache.block_size

    def _drop(self, slot: CacheSlot) -> None:
        self._kv_cache.discard(slot.index)
        slot.tokens, slot.computed, slot.committed = [], 0, 0


def common_length(one: Sequence[int], other: Sequence[int]) -> int:
    """Return the length of the common prefix of two sequences; one shorter than ``MIN_SHARED`` may count as 0."""
    low, high = 0, min(len(one), len(other))
    if one[:MIN_SHARED] != other[:MIN_SHARED] and high >= MIN_SHARED:
        return 0
    while low < high:  # bisection, since comparing slices is much faster than comparing tokens
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
