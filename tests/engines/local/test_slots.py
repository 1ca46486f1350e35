"""Slots share one amount of memory, and sequences reuse the KV cache of earlier ones."""

from itertools import count

import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from steering_server.engines.local.kv_cache import KVCache
from steering_server.engines.local.slots import MIN_SHARED, CacheSlot, SlotPool, common_length
from tests.builders import build_model

LENGTH = 256
TOKENS = st.lists(st.integers(0, 1), min_size=1, max_size=LENGTH)


@given(TOKENS, TOKENS)
def test_common_prefixes_are_measured_unless_they_are_short(one: list[int], other: list[int]):
    expected = next(
        (i for i, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), min(len(one), len(other))
    )
    assert common_length(one, other) == expected or max(common_length(one, other), expected) < MIN_SHARED


def test_discarded_memory_reads_as_zeros():
    kv_cache = KVCache(build_model("llama"), slots=2, length=LENGTH)
    for layer in kv_cache.layers:
        layer.keys.fill_(1)
        layer.values.fill_(1)
    kv_cache.discard(1)
    for layer in kv_cache.layers:
        assert bool((layer.keys[0] == 1).all())
        assert bool((layer.values[0] == 1).all())
        assert not layer.keys[1].any()
        assert not layer.values[1].any()


class SlotsInUse(RuleBasedStateMachine):
    """Sequences start, grow and end; every slot holds the KV cache of its own tokens."""

    @initialize(capacity=st.sampled_from([LENGTH, 3 * LENGTH]), reuse=st.booleans())
    def begin(self, capacity: int, reuse: bool) -> None:
        self.kv_cache = KVCache(build_model("llama", layers=1), slots=4, length=LENGTH)
        self.capacity, self.clock = capacity, count(1)
        self.pool = SlotPool(self.kv_cache, capacity, reuse=reuse)
        self.running: list[CacheSlot] = []

    @rule(tokens=TOKENS, key=st.sampled_from([(), (("profile", 1.0),)]))
    def acquire(self, tokens: list[int], key: tuple[tuple[str, float], ...]) -> None:
        if not self.pool.has_room(len(tokens)):
            assert len(self.running) == 4 or self.pool.free_tokens < LENGTH
            return
        slot, source, shared = self.pool.acquire(tokens, key, len(tokens) - 1)
        if source is not None:
            self.pool.copy(source, slot, min(shared, source.computed))
        assert slot.computed < len(tokens)
        self.check(slot)
        self.running.append(slot)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def compute(self, data: st.DataObject) -> None:
        slot = data.draw(st.sampled_from(self.running))
        slot.tokens.extend(data.draw(st.lists(st.integers(0, 1), max_size=LENGTH - len(slot.tokens))))
        if self.pool.grow(slot, len(slot.tokens)):
            self.write(slot, len(slot.tokens))

    @precondition(lambda self: self.running)
    @rule(data=st.data(), keep=st.booleans())
    def release(self, data: st.DataObject, keep: bool) -> None:
        slot = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        self.pool.release(slot, keep=keep)

    def write(self, slot: CacheSlot, end: int) -> None:
        """Write values that identify the token, its position and the steering, in place of a model."""
        for position in range(slot.computed, end):
            self.kv_cache.layers[0].keys[slot.index, :, position] = self.state(slot, position)
        slot.computed = end

    def state(self, slot: CacheSlot, position: int) -> float:
        return 1 + slot.tokens[position] + 2 * position + 1000 * len(slot.key)

    def check(self, slot: CacheSlot) -> None:
        held = self.kv_cache.layers[0].keys[slot.index, 0, : slot.computed, 0]
        assert torch.equal(held, torch.tensor([self.state(slot, p) for p in range(slot.computed)], dtype=held.dtype))

    @invariant()
    def every_running_slot_holds_its_own_state(self) -> None:
        for slot in getattr(self, "running", []):
            self.check(slot)

    @invariant()
    def no_more_is_held_than_was_granted(self) -> None:
        if hasattr(self, "pool"):
            slots = {slot.index: slot for slot in (*self.pool._free, *self.pool._running)}
            assert len(slots) == 4
            assert sum(slot.committed for slot in slots.values()) <= self.capacity
            assert all(slot.computed <= slot.committed for slot in slots.values())


TestSlotsInUse = SlotsInUse.TestCase
