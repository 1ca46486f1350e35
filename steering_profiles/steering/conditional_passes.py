"""Conditions in the forward passes of a plain transformers model, whose tokens are seen as they come in."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from steering_profiles.composition import Steering
from steering_profiles.conditions import ConditionTrace
from steering_profiles.errors import ConditionError, HookError
from steering_profiles.steering.hooks import SteeringHandle
from steering_profiles.steering.reading import TextReader


@contextmanager
def conditional_passes(
    model: nn.Module, handle: SteeringHandle, steering: Steering, reader: TextReader
) -> Iterator[None]:
    """Steer every forward pass of ``model`` inside this context where the conditions of ``steering`` hold.

    The prompt is what the first pass of a sequence computes; later passes continue it, with the KV cache. Tokens that
    ``attention_mask`` leaves out are padding.

    Raises:
        ConditionError: the tokens of a pass are not known, or it continues a sequence that began before this context.
        HookError: a part of the steering was not applied, or no forward pass was made.
    """
    passes = _Passes(handle, steering, reader)
    hooks = ExitStack()
    before = model.register_forward_pre_hook(passes.begin, with_kwargs=True)
    hooks.callback(before.remove)
    after = model.register_forward_hook(passes.end, always_call=True)
    hooks.callback(after.remove)
    with hooks:
        yield
        if not passes.made:
            raise HookError("the output was not steered: no forward pass was made")


class _Passes:
    """The sequences of the running batch, and the pass that is being made."""

    def __init__(self, handle: SteeringHandle, steering: Steering, reader: TextReader) -> None:
        self._handle = handle
        self._steering = steering
        self._reader = reader
        self._tokens: list[list[int]] = []
        self._traces: list[ConditionTrace | None] = []
        self._watched: Any = None
        self._step = ExitStack()
        self.made = 0
        """Number of passes."""

    def begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Read the tokens of a pass, and steer it."""
        given = kwargs.get("input_ids", args[0] if args else None)
        if not isinstance(given, Tensor):
            raise ConditionError("a condition needs input_ids; inputs_embeds do not say which tokens they are of")
        cache = kwargs.get("past_key_values")
        cached = 0 if cache is None else int(cache.get_seq_length())
        rows: list[list[int]] = given.tolist()
        real = _real(kwargs.get("attention_mask"), rows, cached)
        if cached:
            self._continue(cached, rows)
        else:
            self._start(rows, real)
        self._watch(cache)
        self._step = ExitStack()
        self._step.enter_context(
            self._handle.applied([self._steering] * len(rows), [self._read(*row) for row in enumerate(real)])
        )

    def end(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """End a pass; also one that failed."""
        self._step.close()
        self.made += 1

    def _start(self, rows: Sequence[Sequence[int]], real: Sequence[Sequence[bool]]) -> None:
        self._tokens = [_kept(row, is_real) for row, is_real in zip(rows, real, strict=True)]
        self._lengths = [len(tokens) for tokens in self._tokens]
        self._width = len(rows[0])
        self._traces = [self._reader.trace(self._steering, length) for length in self._lengths]

    def _continue(self, cached: int, rows: Sequence[Sequence[int]]) -> None:
        if len(rows) != len(self._tokens) or cached > self._width:
            raise ConditionError(
                f"a pass continues {len(rows)} sequences after {cached} tokens, which were not computed in this context"
            )
        excess = self._width - cached  # a cache that was cropped, as assisted generation does
        for row, tokens in enumerate(self._tokens):
            if excess:
                del tokens[len(tokens) - excess :]
                self._traces[row] = self._reader.trace(self._steering, self._lengths[row])
            tokens.extend(rows[row])
        self._width = cached + len(rows[0])

    def _read(self, row: int, real: Sequence[bool]) -> list[int]:
        """Return the conditions that hold at the positions of this pass."""
        tokens, trace = self._tokens[row], self._traces[row]
        assert trace is not None
        held = iter(trace.held(tokens, len(tokens) - sum(real), len(tokens)))
        return [next(held) if is_real else 0 for is_real in real]

    def _watch(self, cache: Any) -> None:
        """Follow beam search, which reorders the sequences of the cache."""
        if cache is None or cache is self._watched:
            return
        self._watched = cache
        reorder = cache.reorder_cache

        def reordered(beam_idx: Tensor) -> Any:
            chosen = beam_idx.tolist()
            self._tokens = [list(self._tokens[beam]) for beam in chosen]
            self._lengths = [self._lengths[beam] for beam in chosen]
            self._traces = [self._reader.trace(self._steering, length) for length in self._lengths]
            return reorder(beam_idx)

        cache.reorder_cache = reordered


def _real(mask: Any, rows: Sequence[Sequence[int]], cached: int) -> list[list[bool]]:
    """Return which tokens of a pass are not padding."""
    if not isinstance(mask, Tensor):
        return [[True] * len(row) for row in rows]
    if mask.ndim != 2:
        raise ConditionError(f"attention_mask has {mask.ndim} dimensions; a condition needs [batch, tokens]")
    return [
        [bool(one) for one in of_row[cached : cached + len(row)]]
        for of_row, row in zip(mask.tolist(), rows, strict=True)
    ]


def _kept(row: Sequence[int], real: Sequence[bool]) -> list[int]:
    return [token for token, is_real in zip(row, real, strict=True) if is_real]
