"""Decoding steps as CUDA graphs: what a step computes is captured once and replayed without Python.

A captured step reads tokens, positions, slots and steering rows from buffers that stay where they are, and the factors
of its rows from a table on the device. So one graph serves every mixture of profiles; there is one for each number of
sequences, rounded up, with steering and without.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from steering_profiles.errors import HookError
from steering_profiles.models import LoadedModel
from steering_profiles.steering import SteeringHandle
from steering_profiles.steering.device_table import DeviceTable
from steering_server.engines.local import attention
from steering_server.engines.local.kernels import ScoreOptions
from steering_server.engines.local.kv_cache import KVCache
from steering_server.engines.local.ragged import SequenceInput
from steering_server.engines.local.slotted_attention import SlottedAttention, rounded

Step = Callable[[], Tensor]
"""Computes what its buffers ask for; returns the logits, ``[sequences, vocab]``."""
Capture = Callable[[Step], Step]
"""Runs a step, and returns what repeats the same operators on the same addresses."""

_BUFFERS = ("tokens", "positions", "slots", "steering rows")


class DecodeGraphs:
    """The captured decoding steps of one model."""

    def __init__(self, loaded: LoadedModel, kv_cache: KVCache, steering: SteeringHandle, capture: Capture) -> None:
        self._model: nn.Module = loaded.model
        self._layers = len(loaded.anatomy.layers)
        self._kv_cache = kv_cache
        self._steering = steering
        self._capture = capture
        device = loaded.input_device
        self._table = DeviceTable(steering.table, loaded.anatomy.sizes.head_dim, device)
        self._largest = rounded(kv_cache.slots)
        self._buffers = torch.zeros(len(_BUFFERS), self._largest, dtype=torch.long, device=device)
        self._staged = torch.zeros(len(_BUFFERS), self._largest, dtype=torch.long, pin_memory=device.type == "cuda")
        self._unsteered: dict[int, Step] = {}
        self._steered: dict[int, Step] = {}

    @staticmethod
    def covers(inputs: Sequence[SequenceInput]) -> bool:
        """Whether a step is one of decoding alone: a token and its logits for each sequence, without a gate."""
        return all(
            len(each.tokens) == 1 and each.logits_for == range(1) and each.divergence is None and each.open_gate is None
            for each in inputs
        )

    def run(self, inputs: Sequence[SequenceInput]) -> Tensor:
        """Return the logits of ``inputs``, ``[sequences, vocab]``, which the next step overwrites.

        Raises:
            HookError: the steering of some sequence is not part of what was captured.
            EngineError: some layer did not use the engine's attention.
        """
        rows = [each.steering_rows[0] for each in inputs]
        steers = any(rows)
        if steers:
            self._refresh(rows)
        size = rounded(len(inputs))
        filling = [0] * (size - len(inputs))
        spare = [self._kv_cache.spare_slot] * len(filling)
        self._write(
            size,
            [each.tokens[0] for each in inputs] + filling,
            [each.position for each in inputs] + filling,
            [each.slot for each in inputs] + spare,
            rows + filling,
        )
        steps = self._steered if steers else self._unsteered
        if size not in steps:
            steps[size] = self._capture(lambda: self._compute(size, steers=steers))
        return steps[size]()[: len(inputs)]

    def _refresh(self, rows: Sequence[int]) -> None:
        if self._table.refresh():
            self._steered.clear()
        asked, captured = self._steering.table.parts(rows), self._table.parts
        missing = {*asked.heads} - {*captured.heads} or {*asked.neurons} - {*captured.neurons}
        if missing or (asked.intercept and not captured.intercept):
            raise HookError("the output would not be steered: the captured step has no factors for it")

    def _write(self, size: int, *values: Sequence[int]) -> None:
        self._staged[:, :size] = torch.tensor(values)
        self._buffers[:, :size].copy_(self._staged[:, :size], non_blocking=True)

    def _compute(self, size: int, *, steers: bool) -> Tensor:
        tokens, positions, slots, rows = self._buffers[:, :size]
        attended = SlottedAttention(slots, positions)

        def attend(query: Tensor, key: Tensor, value: Tensor, layer: int, options: ScoreOptions) -> Tensor:
            cache = self._kv_cache.layers[layer]
            cache.keys[slots, :, positions] = key
            cache.values[slots, :, positions] = value
            return attended.attend(query, cache, options)

        factors = self._table.gather(rows) if steers else None
        with self._steering.step_by(factors), attention.attending(attend, self._layers, self._kv_cache.dtype):
            logits: Tensor = self._model(
                input_ids=tokens.unsqueeze(0), position_ids=positions.unsqueeze(0), use_cache=False
            ).logits
        return logits[0]


def refusal(loaded: LoadedModel) -> str | None:
    """Return why steps of a model cannot be captured as CUDA graphs; None if they can."""
    devices = {tensor.device for tensor in (*loaded.model.parameters(), *loaded.model.buffers())}
    if any(device.type != "cuda" for device in devices):
        return "it is not on a GPU as a whole"
    if len(devices) > 1:
        return "it is on several GPUs"
    return None


def cuda_graph(step: Step) -> Step:
    """Capture a step as a CUDA graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):  # kernels are compiled and libraries set up in the first run, which cannot be captured
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        logits = step()

    def replay() -> Tensor:
        graph.replay()
        return logits

    return replay
