"""Changes to logits before sampling: biases, penalties for tokens already seen, a minimum length."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from steering_server.generation.requests import SamplingParams


@dataclass(eq=False)
class TokenHistory:
    """The tokens that a sequence has so far."""

    prompt: frozenset[int]
    generated: Counter[int] = field(default_factory=Counter)


def adjust(
    logits: Tensor, params: Sequence[SamplingParams], histories: Sequence[TokenHistory], end_tokens: frozenset[int]
) -> Tensor:
    """Return ``logits`` (``[sequences, vocab]``) with each sequence's biases and penalties applied.

    Each kind of change is made to all sequences at once. If no sequence has any, ``logits`` itself is returned.
    """
    rows = [(row, p, history) for row, (p, history) in enumerate(zip(params, histories, strict=True)) if _changes(p)]
    if not rows:
        return logits
    logits = logits.float().clone()
    _repeat(logits, [(row, token, p.repetition_penalty) for row, p, seen in rows for token in _repeated(p, seen)])
    _add(
        logits,
        [
            (row, token, -p.presence_penalty - count * p.frequency_penalty)
            for row, p, seen in rows
            if p.presence_penalty or p.frequency_penalty
            for token, count in seen.generated.items()
        ],
    )
    _add(logits, [(row, token, bias) for row, p, _ in rows for token, bias in p.logit_bias])
    too_early = [(row, p) for row, p, seen in rows if seen.generated.total() < p.min_tokens]
    _add(logits, [(row, token, float("-inf")) for row, p in too_early for token in end_tokens | p.stop_tokens])
    return logits


def _changes(p: SamplingParams) -> bool:
    penalised = p.repetition_penalty != 1 or p.presence_penalty or p.frequency_penalty
    return bool(penalised or p.logit_bias or p.min_tokens)


def _repeated(p: SamplingParams, seen: TokenHistory) -> frozenset[int]:
    return seen.prompt | seen.generated.keys() if p.repetition_penalty != 1 else frozenset()


def _repeat(logits: Tensor, penalties: Sequence[tuple[int, int, float]]) -> None:
    if penalties:
        rows, tokens, factors = _columns(penalties, logits)
        seen = logits[rows, tokens]
        logits[rows, tokens] = torch.where(seen > 0, seen / factors, seen * factors)


def _add(logits: Tensor, changes: Sequence[tuple[int, int, float]]) -> None:
    if changes:
        rows, tokens, values = _columns(changes, logits)
        logits.index_put_((rows, tokens), values, accumulate=True)


def _columns(entries: Sequence[tuple[int, int, float]], like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    rows, tokens, values = zip(*entries, strict=True)
    device = like.device
    return torch.tensor(rows, device=device), torch.tensor(tokens, device=device), torch.tensor(values, device=device)
