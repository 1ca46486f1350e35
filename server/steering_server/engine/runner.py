"""One forward pass over many sequences: the stock model, packed input, per-row steering."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from steering_profiles.models import LoadedModel
from steering_profiles.steering import SteeringHandle, attach
from steering_server.engine import attention
from steering_server.engine.kv import KVStore


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


class Runner:
    """A model with steering hooks and a key-value store, run one packed step at a time.

    It takes the model over: its attention implementation is replaced until :meth:`close`.
    """

    def __init__(self, loaded: LoadedModel, *, slots: int, length: int) -> None:
        self._model = loaded.model
        self._device = loaded.input_device
        self._attention_before = loaded.model.config._attn_implementation
        self.store = KVStore(loaded, slots, length)
        self.steering: SteeringHandle = attach(loaded)
        self._model.set_attn_implementation(attention.NAME)

    @torch.inference_mode()
    def run(self, rows: Sequence[RowInput]) -> list[Tensor]:
        """Compute the tokens of ``rows`` in one pass; return per row the logits asked for, ``[wanted, vocab]``.

        Raises:
            HookError: some row's steering did not take place.
        """
        segments: list[attention.Segment] = []
        wanted: list[int] = []
        start = 0
        for row in rows:
            segments.append(attention.Segment(start, start + len(row.tokens), row.slot, row.position))
            wanted.extend(start + index for index in row.logits_for)
            start += len(row.tokens)
        tokens = [token for row in rows for token in row.tokens]
        packed = attention.pack(self.store, segments, self._device)
        with self.steering.step([row.steering_row for row in rows for _ in row.tokens], packed=True):
            logits: Tensor = self._model(
                input_ids=self._tensor(tokens).unsqueeze(0),
                position_ids=packed.positions.unsqueeze(0),
                use_cache=False,
                logits_to_keep=self._tensor(wanted),
                packed=packed,
            ).logits
        return list(logits[0].split([len(row.logits_for) for row in rows]))

    def close(self) -> None:
        """Take the hooks off and give the model its own attention back."""
        self.steering.remove()
        self._model.set_attn_implementation(self._attention_before)

    def _tensor(self, values: Sequence[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.long, device=self._device)
