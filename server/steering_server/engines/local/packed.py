"""How the tokens of one step are laid out, and which of them each layer computes.

Rows that begin alike and are steered alike below some layer, the *fork*, are computed once up to there. The tokens of
a row that forks off are laid out behind those of the others, so that every layer sees the first so many tokens of the
step: below its fork a row is not there, and at its fork it is taken over from the row that it forks off.

A gated row is computed a second time where its logits are wanted, with its gate open. That repetition forks off the row
itself, at the last layer; it stores nothing, and what it attends to is what the row does.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby, takewhile

import torch
from torch import Tensor

from steering_profiles.schema import Gate
from steering_server.engines.local.kv import KVStore

_STRIDE = 32


@dataclass(frozen=True)
class Fork:
    """Where a row begins to be computed by itself."""

    layer: int
    slot: int
    """The slot of the row, with the same tokens at the same positions, that it is taken over from."""


@dataclass(frozen=True)
class Opened:
    """How a gated row is steered where its gate is open."""

    gate: Gate
    steering_row: int


@dataclass(frozen=True)
class RowInput:
    """The next tokens of one sequence."""

    tokens: Sequence[int]
    position: int
    """How many tokens of the sequence have been computed already."""
    slot: int
    steering_row: int
    logits_for: range
    """Which of ``tokens``, by index, the logits that follow are wanted for."""
    fork: Fork | None = None
    opened: Opened | None = None
    """Of a gated row, whose ``steering_row`` is that of the closed gate."""

    @property
    def first_layer(self) -> int:
        """The first layer that computes the row by itself."""
        return 0 if self.fork is None else self.fork.layer

    @property
    def is_repetition(self) -> bool:
        """Whether these are tokens of another row of the step, which are computed a second time."""
        return self.fork is not None and self.fork.slot == self.slot

    def repetition(self, layers: int) -> "RowInput | None":
        """Return the row with its gate open, in the last of ``layers``; None if it has none or no logits are wanted."""
        if self.opened is None or not self.logits_for:
            return None
        start, end = self.logits_for.start, self.logits_for.stop
        return replace(
            self,
            tokens=self.tokens[start:end],
            position=self.position + start,
            steering_row=self.opened.steering_row,
            logits_for=range(end - start),
            fork=Fork(layers - 1, self.slot),
            opened=None,
        )


@dataclass(frozen=True)
class Segment:
    """The tokens ``start..end`` of the step, which stand at ``position`` onwards in the sequence that owns ``slot``."""

    start: int
    end: int
    slot: int
    position: int
    first_layer: int


@dataclass(frozen=True)
class DecodingRows:
    """Sequences of about the same length of which a step has one token each, the tokens ``start..end``."""

    start: int
    end: int
    slots: Tensor
    """``[rows]``"""
    mask: Tensor
    """``[rows, 1, 1, length]``: 0 at the stored positions that each row's query sees, minus infinity elsewhere."""


@dataclass(frozen=True)
class PackedStep:
    """Which sequences the tokens of one forward pass belong to, and which layers compute them."""

    store: KVStore
    padding: int
    """Tokens at the end that belong to no sequence, see :func:`padded`."""
    decoding: tuple[DecodingRows, ...]
    """What is attended for together; it comes first."""
    segments: tuple[Segment, ...]
    """The others, in the order of their tokens."""
    slots: Tensor
    """``[stored tokens]``: the slot of each token, save for repetitions, which come last and store nothing."""
    positions: Tensor
    """``[tokens]``: the position of each token in its sequence; this and the following are without the padding."""
    origins: Tensor
    """``[tokens]``: the token that stands in for each one below its fork; itself where there is none."""
    seen: tuple[int, ...] | None
    """Per layer, how many of the tokens, from the first on, it computes; None where every layer computes all."""
    own: bool
    """Whether nothing of what the last layer attends to is left: all of the tokens have their own values instead."""

    def segments_at(self, layer: int) -> tuple[Segment, ...]:
        """Return the segments that ``layer`` attends for; what forks off there is in :meth:`taken_over`."""
        if self.seen is None:
            return self.segments
        return tuple(segment for segment in self.segments if segment.first_layer < max(layer, 1))

    def taken_over(self, attended: Tensor, layer: int) -> Tensor:
        """Turn ``[tokens, ...]`` that ``layer`` attended for into ``[seen tokens, ...]``.

        A row has at its fork the input and the past of the row that it forks off, so what they attend to is the same:
        steering comes after it.
        """
        if self.seen is None or len(attended) == self.seen[layer]:
            return attended
        return attended[self._stand_ins[self.seen[layer - 1]][: self.seen[layer]].to(attended.device)]

    def to_store(self, state: Tensor, layer: int) -> Tensor:
        """Turn ``[seen tokens, ...]`` of ``layer`` into ``[stored tokens, ...]``: rows not yet there have stand-ins."""
        stored = len(self.slots)
        if self.seen is None or self.seen[layer] >= stored:
            return state[:stored]
        return state[self._stand_ins[self.seen[layer]][:stored].to(state.device)]

    def enter(self, hidden: Tensor, layer: int) -> Tensor:
        """Turn ``[1, tokens, hidden_size]`` as the layer before left it into what ``layer`` computes."""
        if self.seen is None or hidden.shape[1] == self.seen[layer]:
            return hidden
        if layer == 0:
            return hidden[:, : self.seen[0]]
        return hidden[:, self._stand_ins[self.seen[layer - 1]][: self.seen[layer]].to(hidden.device)]

    @cached_property
    def _stand_ins(self) -> dict[int, Tensor]:
        """By how many tokens a layer computes: which of those each token has there, ``[tokens]``."""
        every = torch.arange(len(self.origins), device=self.origins.device)
        twice = self.origins[self.origins]  # for a repetition of a row that forks off another
        return {
            count: torch.where(every < count, every, torch.where(self.origins < count, self.origins, twice))
            for count in set(self.seen or ())
        }


def padded(tokens: int) -> int:
    """Return how many tokens a step of ``tokens`` is filled up to.

    Every new shape costs the CPU's kernels milliseconds to prepare for, and half a megabyte to remember.
    """
    stride = 1 if tokens <= 8 else 4 if tokens <= 32 else 8 if tokens <= 64 else 16
    return -(-tokens // stride) * stride


def order(rows: Sequence[RowInput]) -> list[int]:
    """Return the order in which rows are laid out.

    By first layer, with repetitions last; first of all those of one token, together with others of about their length
    if there are any.
    """
    lengths = Counter(_bucket(row.position) for row in rows if _is_decoding(row))

    def key(index: int) -> tuple[int, bool, bool, bool, int]:
        row = rows[index]
        bucket = _bucket(row.position)
        return row.first_layer, row.is_repetition, not _is_decoding(row), lengths[bucket] == 1, bucket

    return sorted(range(len(rows)), key=key)


def pack(
    store: KVStore, rows: Sequence[RowInput], layers: int, device: torch.device, *, own: bool = False
) -> PackedStep:
    """Lay out a step of ``rows``, which come in the :func:`order` of a step."""
    segments: list[Segment] = []
    start = 0
    for row in rows:
        segments.append(Segment(start, start + len(row.tokens), row.slot, row.position, row.first_layer))
        start += len(row.tokens)
    storing = [segment for row, segment in zip(rows, segments, strict=True) if not row.is_repetition]
    of_slot = {segment.slot: segment for segment in storing}
    origins = [
        origin
        for row, segment in zip(rows, segments, strict=True)
        for origin in _origins(segment, segment if row.fork is None else of_slot[row.fork.slot])
    ]
    single = list(takewhile(_is_decoding, rows))
    together = [list(group) for _, group in groupby(segments[: len(single)], lambda segment: _bucket(segment.position))]
    # One that is alone with its length needs no mask.
    decoding = tuple(_decoding(group, store, device) for group in takewhile(lambda g: len(g) > 1, together))
    forks = any(row.fork for row in rows)
    return PackedStep(
        store=store,
        # Padding would come after the rows that fork, where no layer below the forks could see it.
        padding=0 if forks else padded(start) - start,
        decoding=decoding,
        segments=tuple(segments[sum(rows.end - rows.start for rows in decoding) :]),
        slots=torch.tensor([s.slot for s in storing for _ in range(s.start, s.end)], device=device),
        positions=torch.tensor([s.position + i for s in segments for i in range(s.end - s.start)], device=device),
        origins=torch.tensor(origins, device=device),
        seen=_seen(segments, layers) if forks else None,
        own=own,
    )


def _is_decoding(row: RowInput) -> bool:
    return len(row.tokens) == 1 and row.fork is None


def _bucket(position: int) -> int:
    """Tell apart what is too different in length: every row of a batch costs what its longest does."""
    return max(position, 255).bit_length()


def _origins(segment: Segment, origin: Segment) -> range:
    """Return the tokens of ``origin`` at the positions of ``segment``."""
    start = origin.start + segment.position - origin.position
    return range(start, start + segment.end - segment.start)


def _seen(segments: Sequence[Segment], layers: int) -> tuple[int, ...]:
    return tuple(max(s.end for s in segments if s.first_layer <= layer) for layer in range(layers))


def _decoding(rows: Sequence[Segment], store: KVStore, device: torch.device) -> DecodingRows:
    positions = torch.tensor([row.position for row in rows], device=device)
    longest = max(row.position for row in rows) + 1
    # In strides, since every new shape costs the CPU's kernels a millisecond to prepare for; what is beyond is masked.
    length = min(-(-longest // _STRIDE) * _STRIDE, store.length)
    unseen = torch.arange(length, device=device) > positions.unsqueeze(-1)
    mask = torch.zeros(len(rows), length, dtype=store.dtype, device=device).masked_fill_(unseen, -torch.inf)
    slots = torch.tensor([row.slot for row in rows], device=device)
    return DecodingRows(rows[0].start, rows[-1].end, slots, mask.view(len(rows), 1, 1, length))
