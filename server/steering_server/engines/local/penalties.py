"""What changes a row's logits before a token is drawn: biases, penalties on tokens already seen, a minimum length."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from steering_server.generation.requests import SamplingParams


@dataclass(eq=False)
class History:
    """The tokens that a row has seen."""

    prompt: frozenset[int]
    generated: Counter[int] = field(default_factory=Counter)


def adjust(
    logits: Tensor, params: Sequence[SamplingParams], histories: Sequence[History], end_tokens: frozenset[int]
) -> Tensor:
    """Return ``logits`` (``[rows, vocab]``) with each row's biases and penalties, or as they are if no row has any.

    Each kind of change is made to all rows at once.
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
    _add(logits, [(row, token, float("-inf")) for row, _ in too_early for token in end_tokens])
    return logits


def _changes(p: SamplingParams) -> bool:
    penalised = p.repetition_penalty != 1 or p.presence_penalty or p.frequency_penalty
    return bool(penalised or p.logit_bias or p.min_tokens)


def _repeated(p: SamplingParams, seen: History) -> frozenset[int]:
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
