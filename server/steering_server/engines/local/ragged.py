"""The layout of a ragged batch: which sequence each token belongs to, and which of the tokens each layer computes.

Sequences with the same prompt whose steering differs only from some layer on, the *divergence layer*, are computed once
below it. The tokens of a sequence that diverges are laid out after those of the others, so that every layer computes
the first so many tokens of the batch: below its divergence layer a sequence is absent, and at that layer its hidden
states are copied from the sequence that it diverges from.

A gated sequence is computed a second time where its logits are wanted, with its gate open. This *gate pass* diverges
from the sequence itself at the last layer; it writes nothing to the KV cache and attends to the same keys and values.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby, takewhile

import torch
from torch import Tensor
from torch.nn.functional import pad

from steering_profiles.final_layer_fields import Gate
from steering_server.engines.local.kv_cache import KVCache
from steering_server.engines.local.slotted_attention import SlottedAttention, rounded

_STRIDE = 32


@dataclass(frozen=True)
class Divergence:
    """The layer from which a sequence is computed separately from another one of the batch."""

    layer: int
    slot: int
    """Slot of the other sequence, which has the same tokens at the same positions."""


@dataclass(frozen=True)
class OpenGate:
    """The steering of a gated sequence where its gate is open."""

    gate: Gate
    steering_row: int
    token_rows: Sequence[int] | None = None
    """As in :class:`SequenceInput`."""


@dataclass(frozen=True)
class SequenceInput:
    """The next tokens of one sequence to compute."""

    tokens: Sequence[int]
    position: int
    """Number of tokens of the sequence computed before these."""
    slot: int
    steering_row: int
    logits_for: range
    """Indices into ``tokens`` of the tokens whose logits are wanted."""
    divergence: Divergence | None = None
    open_gate: OpenGate | None = None
    """Set for a gated sequence, whose ``steering_row`` is that of the closed gate."""
    token_rows: Sequence[int] | None = None
    """The row of each token where conditions of the steering choose it; None where all have ``steering_row``."""

    @property
    def steering_rows(self) -> Sequence[int]:
        """The row of the steering table of each token."""
        return [self.steering_row] * len(self.tokens) if self.token_rows is None else self.token_rows

    @property
    def first_layer(self) -> int:
        """The first layer that computes the sequence separately."""
        return 0 if self.divergence is None else self.divergence.layer

    @property
    def is_gate_pass(self) -> bool:
        """Whether this is the second computation of a gated sequence of the same batch."""
        return self.divergence is not None and self.divergence.slot == self.slot

    def gate_pass(self, layers: int) -> "SequenceInput | None":
        """Return the input with its gate open, for the last of ``layers``; None without a gate or wanted logits."""
        if self.open_gate is None or not self.logits_for:
            return None
        start, end = self.logits_for.start, self.logits_for.stop
        return replace(
            self,
            tokens=self.tokens[start:end],
            position=self.position + start,
            steering_row=self.open_gate.steering_row,
            token_rows=None if self.open_gate.token_rows is None else self.open_gate.token_rows[start:end],
            logits_for=range(end - start),
            divergence=Divergence(layers - 1, self.slot),
            open_gate=None,
        )


@dataclass(frozen=True)
class Segment:
    """The tokens ``start..end`` of a batch, at ``position`` onwards in the sequence that owns ``slot``."""

    start: int
    end: int
    slot: int
    position: int
    first_layer: int


@dataclass(frozen=True)
class DecodeGroup:
    """Sequences of similar length with one token each in the batch, the tokens ``start..end``."""

    start: int
    end: int
    slots: Tensor
    """``[sequences]``"""
    positions: Tensor
    """``[sequences]``: those of the tokens."""
    mask: Tensor
    """``[sequences, 1, 1, length]``: 0 at the cached positions that a query sees, minus infinity elsewhere."""

    @cached_property
    def in_place(self) -> SlottedAttention:
        """Attention without a copy of keys and values, padded to one of the numbers of sequences it is compiled for."""
        filling = (0, rounded(len(self.slots)) - len(self.slots))
        return SlottedAttention(pad(self.slots, filling, value=int(self.slots[0])), pad(self.positions, filling))


@dataclass(frozen=True)
class RaggedBatch:
    """The sequences that the tokens of one forward pass belong to, and the layers that compute them."""

    kv_cache: KVCache
    padding: int
    """Number of tokens at the end that belong to no sequence, see :func:`padded_size`."""
    segments: tuple[Segment, ...]
    """The tokens of each sequence, in order."""
    slots: Tensor
    """``[cached tokens]``: the slot of each token, without gate passes, which come last and are not cached."""
    positions: Tensor
    """``[tokens]``: position of each token in its sequence. This field and the next exclude the padding."""
    origins: Tensor
    """``[tokens]``: index of the token whose hidden state each one shares below its divergence layer, or its own."""
    tokens_per_layer: tuple[int, ...] | None
    """Number of tokens that each layer computes, counted from the first; None where every layer computes all."""
    self_only: bool
    """Whether self-only attention replaces the last layer's attention for every token."""

    @cached_property
    def decode_groups(self) -> tuple[DecodeGroup, ...]:
        """Sequences of similar length with one token each, which come first; PyTorch attends for each at once."""
        decoding = takewhile(
            lambda segment: segment.end - segment.start == 1 and segment.first_layer == 0, self.segments
        )
        by_length = [list(group) for _, group in groupby(decoding, lambda segment: _length_bucket(segment.position))]
        # A sequence with no other of similar length needs no mask.
        groups = takewhile(lambda group: len(group) > 1, by_length)
        return tuple(_decode_group(group, self.kv_cache, self.slots.device) for group in groups)

    def segments_at(self, layer: int) -> tuple[Segment, ...]:
        """Return the segments outside of decode groups that ``layer`` attends for with PyTorch's kernels.

        Those that diverge there are in :meth:`expand_attended`.
        """
        segments = self.segments[sum(group.end - group.start for group in self.decode_groups) :]
        if self.tokens_per_layer is None:
            return segments
        return tuple(segment for segment in segments if segment.first_layer < max(layer, 1))

    def segments_of(self, tokens: int) -> Tensor:
        """Return the segments of the first ``tokens``, ``[segments, 4]``: start, end, slot, position."""
        count = bisect_left(self.segments, tokens, key=lambda segment: segment.start)
        return self._segment_table[:count]

    @cached_property
    def _segment_table(self) -> Tensor:
        return torch.tensor([(s.start, s.end, s.slot, s.position) for s in self.segments], dtype=torch.long)

    def expand_attended(self, attended: Tensor, layer: int) -> Tensor:
        """Turn ``[tokens, ...]`` that ``layer`` attended for into ``[tokens that it computes, ...]``.

        At its divergence layer a sequence has the same input and KV cache as the one it diverges from, so the result of
        attention is the same: steering is applied after it.
        """
        if self.tokens_per_layer is None or len(attended) == self.tokens_per_layer[layer]:
            return attended
        shared = self._shared_indices[self.tokens_per_layer[layer - 1]]
        return attended[shared[: self.tokens_per_layer[layer]].to(attended.device)]

    def to_cache(self, state: Tensor, layer: int) -> Tensor:
        """Turn ``[tokens that layer computes, ...]`` into ``[cached tokens, ...]``, repeating what is shared."""
        sources = self.cache_sources(layer)
        return state[: len(self.slots)] if sources is None else state[sources.to(state.device)]

    def cache_sources(self, layer: int) -> Tensor | None:
        """Return the token of ``layer`` whose keys and values each cached token gets; None where it is its own."""
        cached = len(self.slots)
        if self.tokens_per_layer is None or self.tokens_per_layer[layer] >= cached:
            return None
        return self._shared_indices[self.tokens_per_layer[layer]][:cached]

    def changes_at(self, layer: int) -> bool:
        """Whether ``layer`` computes other tokens than the one before it."""
        counts = self.tokens_per_layer
        return counts is not None and layer > 0 and counts[layer] != counts[layer - 1]

    def enter_layer(self, hidden: Tensor, layer: int) -> Tensor:
        """Turn the previous layer's output ``[1, tokens, hidden_size]`` into the tokens that ``layer`` computes."""
        if self.tokens_per_layer is None or hidden.shape[1] == self.tokens_per_layer[layer]:
            return hidden
        if layer == 0:
            return hidden[:, : self.tokens_per_layer[0]]
        shared = self._shared_indices[self.tokens_per_layer[layer - 1]]
        return hidden[:, shared[: self.tokens_per_layer[layer]].to(hidden.device)]

    @cached_property
    def _shared_indices(self) -> dict[int, Tensor]:
        """For each number of tokens that a layer computes: the index there of every token's state, ``[tokens]``."""
        every = torch.arange(len(self.origins), device=self.origins.device)
        twice = self.origins[self.origins]  # for the gate pass of a sequence that diverges from another
        return {
            count: torch.where(every < count, every, torch.where(self.origins < count, self.origins, twice))
            for count in set(self.tokens_per_layer or ())
        }


def padded_size(tokens: int) -> int:
    """Return the number of tokens that a batch of ``tokens`` is padded to.

    Every new shape costs the CPU's kernels milliseconds to prepare for, and half a megabyte to remember.
    """
    stride = 1 if tokens <= 8 else 4 if tokens <= 32 else 8 if tokens <= 64 else 16
    return -(-tokens // stride) * stride


def layout_order(inputs: Sequence[SequenceInput]) -> list[int]:
    """Return the indices of ``inputs`` in the order of the batch.

    They are sorted by first layer, gate passes last. Sequences with one token come first, and among those the ones with
    others of similar length.
    """
    lengths = Counter(_length_bucket(each.position) for each in inputs if _is_decode(each))

    def key(index: int) -> tuple[int, bool, bool, bool, int]:
        each = inputs[index]
        bucket = _length_bucket(each.position)
        return each.first_layer, each.is_gate_pass, not _is_decode(each), lengths[bucket] == 1, bucket

    return sorted(range(len(inputs)), key=key)


def build_batch(
    kv_cache: KVCache,
    inputs: Sequence[SequenceInput],
    layers: int,
    device: torch.device,
    *,
    self_only: bool = False,
    min_tokens: int = 1,
) -> RaggedBatch:
    """Lay out a batch of ``inputs``, which are in :func:`layout_order`, padded to at least ``min_tokens``."""
    segments: list[Segment] = []
    start = 0
    for each in inputs:
        segments.append(Segment(start, start + len(each.tokens), each.slot, each.position, each.first_layer))
        start += len(each.tokens)
    cached = [segment for each, segment in zip(inputs, segments, strict=True) if not each.is_gate_pass]
    by_slot = {segment.slot: segment for segment in cached}
    origins = [
        origin
        for each, segment in zip(inputs, segments, strict=True)
        for origin in _origins(segment, segment if each.divergence is None else by_slot[each.divergence.slot])
    ]
    diverges = any(each.divergence for each in inputs)
    return RaggedBatch(
        kv_cache=kv_cache,
        # Padding would come after the sequences that diverge, where no layer below their divergence could see it.
        padding=0 if diverges else max(padded_size(start), min_tokens) - start,
        segments=tuple(segments),
        slots=torch.tensor([s.slot for s in cached for _ in range(s.start, s.end)], device=device),
        positions=torch.tensor([s.position + i for s in segments for i in range(s.end - s.start)], device=device),
        origins=torch.tensor(origins, device=device),
        tokens_per_layer=_tokens_per_layer(segments, layers) if diverges else None,
        self_only=self_only,
    )


def _is_decode(each: SequenceInput) -> bool:
    return len(each.tokens) == 1 and each.divergence is None


def _length_bucket(position: int) -> int:
    """Return a number that similar lengths share: every sequence of a group costs as much as its longest."""
    return max(position, 255).bit_length()


def _origins(segment: Segment, origin: Segment) -> range:
    """Return the tokens of ``origin`` at the positions of ``segment``."""
    start = origin.start + segment.position - origin.position
    return range(start, start + segment.end - segment.start)


def _tokens_per_layer(segments: Sequence[Segment], layers: int) -> tuple[int, ...]:
    return tuple(max(s.end for s in segments if s.first_layer <= layer) for layer in range(layers))


def _decode_group(segments: Sequence[Segment], kv_cache: KVCache, device: torch.device) -> DecodeGroup:
    positions = torch.tensor([segment.position for segment in segments], device=device)
    longest = max(segment.position for segment in segments) + 1
    # In strides, since every new shape costs the CPU's kernels a millisecond to prepare for; the excess is masked.
    length = min(-(-longest // _STRIDE) * _STRIDE, kv_cache.length)
    unseen = torch.arange(length, device=device) > positions.unsqueeze(-1)
    mask = torch.zeros(len(segments), length, dtype=kv_cache.dtype, device=device).masked_fill_(unseen, -torch.inf)
    slots = torch.tensor([segment.slot for segment in segments], device=device)
    return DecodeGroup(segments[0].start, segments[-1].end, slots, positions, mask.view(len(segments), 1, 1, length))
