"""Greedy completion of a batch of prompts, each with its own steering, with a KV cache."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor

from steering_profiles.conditions import ConditionTrace
from steering_profiles.models import LoadedModel
from steering_profiles.steering import Steering, SteeringHandle, TextReader, attach, steered_logits
from steering_profiles.tokenization import encode_prompt

_TAIL = 16
"""Number of last tokens in which a stop string is searched after each token."""


@dataclass
class _Sequence:
    """A prompt and its completion so far."""

    prompt: tuple[int, ...]
    steering: Steering
    most: int
    """Maximum number of tokens to generate."""
    trace: ConditionTrace | None
    """Where the conditions of the steering hold; None if it has none."""
    completion: list[int] = field(default_factory=list)
    done: bool = False

    def held(self, width: int) -> list[int]:
        """Return the conditions that hold at the last ``width`` positions; none does in the padding on the left."""
        if self.trace is None:
            return [0] * width
        tokens = [*self.prompt, *self.completion]
        return ([0] * (width - len(tokens)) + self.trace.held(tokens, 0, len(tokens)))[-width:]


class GreedyDecoder:
    """Greedy decoder. It is a context manager that removes its hooks from the model on exit."""

    def __init__(self, loaded: LoadedModel) -> None:
        self._loaded = loaded
        self._handle: SteeringHandle = attach(loaded)
        self._reader = TextReader(loaded.tokenizer)
        self._ends = loaded.end_tokens

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.remove()

    def complete(
        self, prompts: Sequence[str], steerings: Sequence[Steering], most_tokens: int, stop: Sequence[str] = ()
    ) -> list[str]:
        """Return each prompt's completion under the steering of the same index, all in one batch.

        A completion ends before the first stop string, at an end-of-text token, after ``most_tokens`` tokens or at the
        model's context length. It is empty if the prompt fills the context.
        """
        sequences = []
        for prompt, steering in zip(prompts, steerings, strict=True):
            tokens = encode_prompt(self._loaded.tokenizer, prompt)
            most = min(most_tokens, self._loaded.context_length - len(tokens))
            trace = self._reader.trace(steering, len(tokens))
            sequences.append(_Sequence(tokens, steering, most, trace, done=most < 1))
        self._run([sequence for sequence in sequences if not sequence.done], stop)
        return [_before(self._text(sequence), stop) for sequence in sequences]

    @torch.inference_mode()
    def _run(self, sequences: list[_Sequence], stop: Sequence[str]) -> None:
        device = self._loaded.input_device
        longest = max((len(sequence.prompt) for sequence in sequences), default=0)
        # Padded on the left, so that the last tokens align; the mask excludes the padding.
        padding = [longest - len(sequence.prompt) for sequence in sequences]
        tokens = torch.tensor(
            [[0] * n + list(sequence.prompt) for n, sequence in zip(padding, sequences, strict=True)], device=device
        )
        mask = torch.tensor([[0] * n + [1] * (longest - n) for n in padding], device=device)
        positions = (mask.cumsum(dim=-1) - 1).clamp(min=0)
        cache: Any = None
        while sequences:
            following, cache = self._next(sequences, tokens, mask, positions, cache)
            for sequence, token in zip(sequences, following.tolist(), strict=True):
                self._take(sequence, token, stop)
            kept = [index for index, sequence in enumerate(sequences) if not sequence.done]
            if len(kept) < len(sequences):
                sequences = [sequences[index] for index in kept]
                following, mask, positions = _select(cache, kept, following, mask, positions)
            tokens = following.unsqueeze(-1)
            mask = torch.cat([mask, mask.new_ones(len(sequences), 1)], dim=-1)
            positions = positions[:, -1:] + 1

    def _next(
        self, sequences: Sequence[_Sequence], tokens: Tensor, mask: Tensor, positions: Tensor, cache: Any
    ) -> tuple[Tensor, Any]:
        """Return the likeliest next tokens, ``[sequences]``, and the cache extended by ``tokens``."""
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

        conditional = any(sequence.trace is not None for sequence in sequences)
        held = [sequence.held(tokens.shape[1]) for sequence in sequences] if conditional else None
        logits = steered_logits(self._handle, [sequence.steering for sequence in sequences], forward, held)
        return logits[:, -1].argmax(dim=-1), extended

    def _take(self, sequence: _Sequence, token: int, stop: Sequence[str]) -> None:
        if token in self._ends:
            sequence.done = True
            return
        sequence.completion.append(token)
        tail = self._loaded.tokenizer.decode(sequence.completion[-_TAIL:], clean_up_tokenization_spaces=False)
        sequence.done = len(sequence.completion) == sequence.most or any(text in tail for text in stop)

    def _text(self, sequence: _Sequence) -> str:
        # Decoded together with the prompt, since some tokenizers drop a space at the start of a text.
        before, whole = (
            self._loaded.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
            for tokens in (sequence.prompt, [*sequence.prompt, *sequence.completion])
        )
        return str(whole).removeprefix(str(before))


def _snapshot(cache: Any) -> Any:
    """Return a copy of ``cache`` that can be extended without changing it: a layer that grows gets new tensors."""
    if cache is None:
        return None
    snapshot = copy.copy(cache)
    snapshot.layers = [copy.copy(layer) for layer in cache.layers]
    return snapshot


def _select(cache: Any, kept: list[int], *tensors: Tensor) -> list[Tensor]:
    """Keep the sequences ``kept`` of the cache, in place, and of ``tensors``."""
    index = torch.tensor(kept, dtype=torch.long)  # on the CPU, since the cache's layers may be on several devices
    if kept:
        cache.batch_select_indices(index)
    return [tensor[index] for tensor in tensors]


def _before(text: str, stop: Sequence[str]) -> str:
    """Return ``text`` before the first occurrence of any of ``stop``."""
    return text[: min((at for at in map(text.find, stop) if at >= 0), default=len(text))]
