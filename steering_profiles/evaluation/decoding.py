"""Greedy completions of whole prompts, steered row by row, with a key-value cache."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor

from steering_profiles.models import LoadedModel
from steering_profiles.steering import Steering, SteeringHandle, attach, steered_logits
from steering_profiles.tokenization import encode_prompt

_TAIL = 16
"""The last tokens of a row, among which a stop string that has just been completed must be."""


@dataclass
class _Row:
    """One prompt and what has been written after it."""

    prompt: tuple[int, ...]
    steering: Steering
    most: int
    """Tokens that may be generated."""
    written: list[int] = field(default_factory=list)
    done: bool = False


class GreedyDecoder:
    """Completes prompts greedily. A context manager: on leaving it the model is plain again."""

    def __init__(self, loaded: LoadedModel) -> None:
        self._loaded = loaded
        self._handle: SteeringHandle = attach(loaded)
        self._ends = loaded.end_tokens

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.remove()

    def complete(
        self, prompts: Sequence[str], steerings: Sequence[Steering], most_tokens: int, stop: Sequence[str] = ()
    ) -> list[str]:
        """Return each prompt's completion under the steering of the same index, all in one batch.

        A completion ends before the first stop string, at the end of text, after ``most_tokens`` tokens, or where the
        model can take no more; it is empty where the prompt alone fills the model.
        """
        rows = []
        for prompt, steering in zip(prompts, steerings, strict=True):
            tokens = encode_prompt(self._loaded.tokenizer, prompt)
            most = min(most_tokens, self._loaded.context_length - len(tokens))
            rows.append(_Row(tokens, steering, most, done=most < 1))
        self._run([row for row in rows if not row.done], stop)
        return [_before(self._text(row), stop) for row in rows]

    @torch.inference_mode()
    def _run(self, rows: list[_Row], stop: Sequence[str]) -> None:
        device = self._loaded.input_device
        longest = max((len(row.prompt) for row in rows), default=0)
        # Padded on the left, so that the rows end together; the mask keeps the padding out.
        padding = [longest - len(row.prompt) for row in rows]
        tokens = torch.tensor([[0] * n + list(row.prompt) for n, row in zip(padding, rows, strict=True)], device=device)
        mask = torch.tensor([[0] * n + [1] * (longest - n) for n in padding], device=device)
        positions = (mask.cumsum(dim=-1) - 1).clamp(min=0)
        cache: Any = None
        while rows:
            following, cache = self._next(rows, tokens, mask, positions, cache)
            for row, token in zip(rows, following.tolist(), strict=True):
                self._take(row, token, stop)
            kept = [index for index, row in enumerate(rows) if not row.done]
            if len(kept) < len(rows):
                rows = [rows[index] for index in kept]
                following, mask, positions = _select(cache, kept, following, mask, positions)
            tokens = following.unsqueeze(-1)
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=-1)
            positions = positions[:, -1:] + 1

    def _next(
        self, rows: Sequence[_Row], tokens: Tensor, mask: Tensor, positions: Tensor, cache: Any
    ) -> tuple[Tensor, Any]:
        """Return each row's likeliest next token, ``[rows]``, and the cache with ``tokens`` in it."""
        extended: Any = None

        def forward() -> Tensor:
            nonlocal extended
            output = self._loaded.model(
                input_ids=tokens,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=_snapshot(cache),
                use_cache=True,
                logits_to_keep=1,
            )
            extended = output.past_key_values
            logits: Tensor = output.logits
            return logits

        logits = steered_logits(self._handle, [row.steering for row in rows], forward)
        return logits[:, -1].argmax(dim=-1), extended

    def _take(self, row: _Row, token: int, stop: Sequence[str]) -> None:
        if token in self._ends:
            row.done = True
            return
        row.written.append(token)
        tail = self._loaded.tokenizer.decode(row.written[-_TAIL:], clean_up_tokenization_spaces=False)
        row.done = len(row.written) == row.most or any(text in tail for text in stop)

    def _text(self, row: _Row) -> str:
        # Decoded together with the prompt: some tokenizers drop the space that a text begins with.
        before, whole = (
            self._loaded.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
            for tokens in (row.prompt, [*row.prompt, *row.written])
        )
        return str(whole).removeprefix(str(before))


def _snapshot(cache: Any) -> Any:
    """Return a cache to extend while ``cache`` stays as it is: a layer that grows takes new tensors."""
    if cache is None:
        return None
    snapshot = copy.copy(cache)
    snapshot.layers = [copy.copy(layer) for layer in cache.layers]
    return snapshot


def _select(cache: Any, kept: list[int], *tensors: Tensor) -> list[Tensor]:
    """Drop the rows that are done from the cache, in place, and from ``tensors``."""
    index = torch.tensor(kept, dtype=torch.long)  # on the CPU, since the layers' caches may be on several devices
    if kept:
        cache.batch_select_indices(index)
    return [tensor[index] for tensor in tensors]


def _before(text: str, stop: Sequence[str]) -> str:
    """Return ``text`` up to the first of ``stop``."""
    return text[: min((at for at in map(text.find, stop) if at >= 0), default=len(text))]
