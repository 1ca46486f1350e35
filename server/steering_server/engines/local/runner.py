"""One forward pass over many sequences: the stock model, packed input, per-row steering."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from steering_profiles.models import LoadedModel
from steering_profiles.models.attention import attention_by
from steering_profiles.steering import SteeringHandle, attach, is_open
from steering_server.engines.local import attention
from steering_server.engines.local.kv import KVStore
from steering_server.engines.local.packed import RowInput, order, pack
from steering_server.engines.local.packing import PackedLinears
from steering_server.errors import EngineError


@dataclass(frozen=True)
class RowOutput:
    """What one pass computed for one row."""

    logits: Tensor
    """``[wanted, vocab]``"""
    finite: bool
    """Whether all of them are numbers."""


class Runner:
    """A model with steering hooks and a key-value store, run one packed step at a time.

    It takes the model over: its attention implementation and the order of its weights are replaced until :meth:`close`.

    Raises:
        EngineError: another one has.
        ConfigError: there is no memory for keys and values.
    """

    def __init__(self, loaded: LoadedModel, *, slots: int, length: int) -> None:
        if loaded.model.config._attn_implementation == attention.NAME:
            raise EngineError("another engine runs on this model; close that first, or load the model again")
        self._model = loaded.model
        self._device = loaded.input_device
        self._layers = len(loaded.anatomy.layers)
        self.store = KVStore(loaded, slots, length)
        self.steering: SteeringHandle = attach(loaded)
        self._attention = ExitStack()
        self._attention.enter_context(attention_by(self._model, loaded.anatomy, attention.NAME))
        self._entries = [
            layer.block.register_forward_pre_hook(_entry(index), with_kwargs=True)
            for index, layer in enumerate(loaded.anatomy.layers)
        ]
        self._wanted: Tensor | None = None
        self._entries.append(loaded.anatomy.unembedding.register_forward_pre_hook(self._keep_wanted))
        self._linears = PackedLinears(self._model)

    @torch.inference_mode()
    def run(self, rows: Sequence[RowInput]) -> list[RowOutput]:
        """Compute the tokens of ``rows`` in one pass; return what was asked for, row by row, by their gates if any.

        Raises:
            HookError: some row's steering did not take place.
            EngineError: some layer did not attend as it should have.
        """
        repetitions = {i: again for i, row in enumerate(rows) if (again := row.repetition(self._layers)) is not None}
        every = [*rows, *repetitions.values()]
        places = order(every)
        ordered = [every[index] for index in places]
        own = all(self.steering.attends_to_itself(row.steering_row) for row in ordered)
        packed = pack(self.store, ordered, self._layers, self._device, own=own)
        filling = [0] * packed.padding
        tokens = [token for row in ordered for token in row.tokens] + filling
        steering_rows = [row.steering_row for row in ordered for _ in row.tokens] + filling
        positions = torch.cat([packed.positions, packed.positions.new_zeros(packed.padding)])
        self._wanted = self._tensor(_wanted(ordered))
        with (
            attention.attending(packed, self._layers),
            self.steering.step(steering_rows, packed=True, seen=packed.seen),
        ):
            logits: Tensor = self._model(
                input_ids=self._tensor(tokens).unsqueeze(0),
                position_ids=positions.unsqueeze(0),
                use_cache=False,
            ).logits
        spans = _spans(places, ordered)
        for repetition, index in enumerate(repetitions, len(rows)):
            opened = rows[index].opened
            if opened is not None:
                closed = logits[0, spans[index]]
                chosen = is_open(closed, opened.gate)
                closed[chosen] = logits[0, spans[repetition]][chosen]
        finite = logits[0].amax(dim=-1).isfinite().tolist()  # a NaN is the greatest of all
        return [RowOutput(logits[0, spans[index]], all(finite[spans[index]])) for index in range(len(rows))]

    def close(self) -> None:
        """Take the hooks off and give the model its own attention and weights back."""
        self._linears.close()
        self.steering.remove()
        for entry in self._entries:
            entry.remove()
        self._attention.close()

    def _keep_wanted(self, module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Let only the tokens be unembedded whose logits are wanted, on whichever device they have come to."""
        if attention.current_step() is None or self._wanted is None:
            return args
        return (args[0][:, self._wanted.to(args[0].device)], *args[1:])

    def _tensor(self, values: Sequence[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.long, device=self._device)


def _wanted(rows: Sequence[RowInput]) -> list[int]:
    wanted: list[int] = []
    start = 0
    for row in rows:
        wanted.extend(start + index for index in row.logits_for)
        start += len(row.tokens)
    return wanted


def _spans(places: Sequence[int], rows: Sequence[RowInput]) -> dict[int, slice]:
    """Return where the logits of each row are, by the index that ``places`` gives it."""
    spans = {}
    start = 0
    for index, row in zip(places, rows, strict=True):
        spans[index] = slice(start, start + len(row.logits_for))
        start += len(row.logits_for)
    return spans


def _entry(layer: int) -> Callable[..., tuple[tuple[Any, ...], dict[str, Any]] | None]:
    """Return a hook that hands block ``layer`` the tokens it computes, and what the model made per token for them."""

    def hook(
        module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        packed = attention.current_step()
        if packed is None or packed.seen is None:
            return None
        every, seen = len(packed.positions), packed.seen[layer]
        if seen < every:
            kwargs = {name: _first(value, every, seen) for name, value in kwargs.items()}
        return (packed.enter(args[0], layer), *args[1:]), kwargs

    return hook


def _first(value: Any, every: int, seen: int) -> Any:
    """Return, of a per-token tensor ``[1, tokens, ...]`` or a tuple of such, what is for the first tokens."""
    if isinstance(value, tuple):
        return tuple(_first(part, every, seen) for part in value)
    is_per_token = isinstance(value, Tensor) and value.ndim > 1 and value.shape[:2] == (1, every)
    return value[:, :seen] if is_per_token else value
