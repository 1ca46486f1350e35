"""One forward pass over many sequences: the stock model, a ragged batch, steering per sequence."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from steering_profiles.models import LoadedModel
from steering_profiles.models.attention import attention_by
from steering_profiles.steering import SteeringHandle, attach, is_open
from steering_server.engines.local import attention, fused
from steering_server.engines.local.decode_graphs import DecodeGraphs
from steering_server.engines.local.fused import FusedModel
from steering_server.engines.local.kv_cache import KVCache
from steering_server.engines.local.logits import largest
from steering_server.engines.local.prepacking import PrepackedLinears
from steering_server.engines.local.ragged import RaggedBatch, SequenceInput, build_batch, layout_order
from steering_server.engines.local.unembedding import float32_unembedding
from steering_server.errors import EngineError


@dataclass(frozen=True)
class SequenceOutput:
    """The result of one forward pass for one sequence."""

    batch_logits: Tensor
    """Those of the whole batch, ``[rows, vocab]``; float32 where the compiled kernels run."""
    rows: slice
    """The sequence's own rows, one for each wanted token."""
    finite: bool
    """Whether all of its logits are finite."""

    @property
    def logits(self) -> Tensor:
        """``[wanted, vocab]``"""
        return self.batch_logits[self.rows]


class Runner:
    """A model with steering hooks and a KV cache, run one ragged batch at a time.

    Until :meth:`close` the model belongs to the runner, which replaces its attention implementation and prepacks its
    weights.

    Raises:
        EngineError: another runner uses the model.
        ConfigError: there is not enough memory for the KV cache.
    """

    def __init__(self, loaded: LoadedModel, *, slots: int, length: int) -> None:
        if loaded.model.config._attn_implementation == attention.NAME:
            raise EngineError("another engine runs on this model; close that first, or load the model again")
        self._model = loaded.model
        self._device = loaded.input_device
        self._layers = len(loaded.anatomy.layers)
        self.kv_cache = KVCache(loaded, slots, length)
        self.steering: SteeringHandle = attach(loaded)
        self._attention = ExitStack()
        self._attention.enter_context(attention_by(self._model, loaded.anatomy, attention.NAME))
        self._hooks = [
            layer.block.register_forward_pre_hook(_layer_entry_hook(index), with_kwargs=True)
            for index, layer in enumerate(loaded.anatomy.layers)
        ]
        self._wanted: Tensor | None = None
        self._hooks.append(loaded.anatomy.unembedding.register_forward_pre_hook(self._select_wanted))
        self._unembedding = float32_unembedding(loaded, self.kv_cache.kernels_refused)
        self.fused_refused = fused.refusal(loaded, self.kv_cache.kernels_refused)
        """Why transformers' modules are run instead of fused operators; None where those are."""
        if self._unembedding is None and self.fused_refused is None:
            self.fused_refused = "its unembedding is not a plain linear layer"
        self._linears = PrepackedLinears(
            self._model,
            fused.groups(loaded) if self.fused_refused is None else (),
            without=() if self._unembedding is None else (loaded.anatomy.unembedding,),
        )
        self._fused = (
            FusedModel(loaded, self._linears, self.steering, self.kv_cache) if self.fused_refused is None else None
        )
        self._min_tokens = 1
        self._graphs: DecodeGraphs | None = None

    @property
    def linears(self) -> PrepackedLinears:
        """The linear layers."""
        return self._linears

    @property
    def compiled_unembedding(self) -> bool:
        """Whether the compiled kernels compute the logits."""
        return self._unembedding is not None

    def capture_decoding(self, graphs: DecodeGraphs | None) -> None:
        """Run decoding steps by ``graphs`` from now on, and attend in place; with None as other steps are run."""
        self._graphs = graphs
        self.kv_cache.is_attended_in_place = graphs is not None

    def pad_to(self, min_tokens: Sequence[int]) -> None:
        """Pad the input of each of :attr:`linears` to its own number of tokens from now on."""
        for linear, least in zip(self._linears.all, min_tokens, strict=True):
            linear.min_tokens = least
        # What all of them need is padded once.
        self._min_tokens = min(min_tokens, default=1)
        if self._fused is not None:
            self._fused.in_one_call = max(min_tokens, default=1) == self._min_tokens

    @torch.inference_mode()
    def run(self, inputs: Sequence[SequenceInput]) -> list[SequenceOutput]:
        """Compute the tokens of ``inputs`` in one pass; return the wanted logits of each, chosen by its gate if any.

        Raises:
            HookError: the steering of some sequence was not applied.
            EngineError: some layer did not use the engine's attention.
        """
        if self._graphs is not None and DecodeGraphs.covers(inputs):
            return _one_row_each(self._graphs.run(inputs))
        gate_passes = {i: again for i, each in enumerate(inputs) if (again := each.gate_pass(self._layers)) is not None}
        every = [*inputs, *gate_passes.values()]
        order = layout_order(every)
        ordered = [every[index] for index in order]
        used = {row for each in ordered for row in each.steering_rows}
        self_only = all(map(self.steering.attends_to_itself, used))
        batch = build_batch(
            self.kv_cache, ordered, self._layers, self._device, self_only=self_only, min_tokens=self._min_tokens
        )
        filling = [0] * batch.padding
        tokens = self._tensor([token for each in ordered for token in each.tokens] + filling)
        steering_rows = [row for each in ordered for row in each.steering_rows] + filling
        positions = torch.cat([batch.positions, batch.positions.new_zeros(batch.padding)])
        wanted = self._tensor(_wanted_tokens(ordered))
        with self.steering.step(steering_rows, ragged=True, tokens_per_layer=batch.tokens_per_layer):
            logits = self._forward(tokens, positions, batch, wanted)
        spans = _logit_spans(order, ordered)
        for gate_pass, index in enumerate(gate_passes, len(inputs)):
            open_gate = inputs[index].open_gate
            if open_gate is not None:
                closed = logits[spans[index]]
                chosen = is_open(closed, open_gate.gate)
                closed[chosen] = logits[spans[gate_pass]][chosen]
        finite = largest(logits).isfinite().tolist()  # of a row with a NaN it is NaN
        return [SequenceOutput(logits, spans[index], all(finite[spans[index]])) for index in range(len(inputs))]

    def _forward(self, tokens: Tensor, positions: Tensor, batch: RaggedBatch, wanted: Tensor) -> Tensor:
        """Return the logits of the ``wanted`` tokens, ``[wanted, vocab]``."""
        if self._fused is not None and self._unembedding is not None:
            return self._unembedding(self._fused(tokens, positions, batch, wanted))
        self._wanted = wanted
        with attention.forward_context(batch, self._layers):
            logits: Tensor = self._model(
                input_ids=tokens.unsqueeze(0), position_ids=positions.unsqueeze(0), use_cache=False
            ).logits
        return logits[0]

    def close(self) -> None:
        """Remove the hooks and restore the model's own attention and weights."""
        self._linears.close()
        if self._unembedding is not None:
            self._unembedding.close()
        self.steering.remove()
        for hook in self._hooks:
            hook.remove()
        self._attention.close()

    def _select_wanted(self, module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Let the unembedding compute only the tokens whose logits are wanted."""
        if attention.current_batch() is None or self._wanted is None:
            return args
        return (args[0][:, self._wanted.to(args[0].device)], *args[1:])

    def _tensor(self, values: Sequence[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.long, device=self._device)


def _one_row_each(logits: Tensor) -> list[SequenceOutput]:
    finite = largest(logits).isfinite().tolist()
    return [SequenceOutput(logits, slice(row, row + 1), is_finite) for row, is_finite in enumerate(finite)]


def _wanted_tokens(inputs: Sequence[SequenceInput]) -> list[int]:
    """Return the indices, in the batch, of the tokens whose logits are wanted."""
    wanted: list[int] = []
    start = 0
    for each in inputs:
        wanted.extend(start + index for index in each.logits_for)
        start += len(each.tokens)
    return wanted


def _logit_spans(order: Sequence[int], inputs: Sequence[SequenceInput]) -> dict[int, slice]:
    """Return the slice of the logits that belongs to each input, by the index that ``order`` gives it."""
    spans = {}
    start = 0
    for index, each in zip(order, inputs, strict=True):
        spans[index] = slice(start, start + len(each.logits_for))
        start += len(each.logits_for)
    return spans


def _layer_entry_hook(layer: int) -> Callable[..., tuple[tuple[Any, ...], dict[str, Any]] | None]:
    """Return a hook that gives block ``layer`` the tokens it computes, and the per-token arguments for them."""

    def hook(
        module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        batch = attention.current_batch()
        if batch is None or batch.tokens_per_layer is None:
            return None
        total, count = len(batch.positions), batch.tokens_per_layer[layer]
        if count < total:
            kwargs = {name: _first_tokens(value, total, count) for name, value in kwargs.items()}
        return (batch.enter_layer(args[0], layer), *args[1:]), kwargs

    return hook


def _first_tokens(value: Any, total: int, count: int) -> Any:
    """Return the first ``count`` tokens of a per-token tensor ``[1, total, ...]``, or of a tuple of such tensors."""
    if isinstance(value, tuple):
        return tuple(_first_tokens(part, total, count) for part in value)
    is_per_token = isinstance(value, Tensor) and value.ndim > 1 and value.shape[:2] == (1, total)
    return value[:, :count] if is_per_token else value
