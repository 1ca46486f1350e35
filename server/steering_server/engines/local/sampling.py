"""Choose the next token of every row of a batch at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from steering_server.generation.requests import SamplingParams, TokenLogprob

_CANDIDATES = 1024
"""Likeliest tokens that a truncated draw looks at before the whole vocabulary is sorted."""


def sample(logits: Tensor, params: Sequence[SamplingParams], uniforms: Sequence[float]) -> list[int]:
    """Return one token per row of ``logits`` (``[rows, vocab]``).

    ``uniforms`` are numbers in [0, 1) drawn by each row's own generator: a row's token depends on its logits, its
    parameters and its number alone. Rows of temperature 0 take the likeliest token, the lowest id among equals.
    """
    tokens = logits.float().argmax(dim=-1)  # which is several times as fast as on bfloat16, conversion included
    warm = [row for row, p in enumerate(params) if p.temperature > 0]
    whole = [row for row in warm if not _is_truncated(params[row])]
    truncated = [row for row in warm if _is_truncated(params[row])]
    if whole:
        tokens[whole] = _invert(_softmax(logits, params, whole), _column(uniforms, whole, logits))
    if truncated:
        limits = _Limits(
            top_p=_column([p.top_p for p in params], truncated, logits),
            top_k=_column([p.top_k or logits.shape[-1] for p in params], truncated, logits),
            min_p=_column([p.min_p for p in params], truncated, logits),
        )
        u = _column(uniforms, truncated, logits)
        tokens[truncated] = _draw_truncated(_softmax(logits, params, truncated), limits, u)
    return [int(token) for token in tokens.tolist()]


def logprobs_of(logits: Tensor, tokens: Sequence[int], alternatives: Sequence[int]) -> list[TokenLogprob]:
    """Return the log-probability of one token per row of ``logits`` (``[rows, vocab]``) and its likeliest alternatives.

    ``alternatives`` says how many of those each row wants.
    """
    if not tokens:
        return []
    logprobs = logits.float().log_softmax(dim=-1)
    chosen = logprobs.gather(-1, torch.tensor(tokens, device=logits.device).unsqueeze(-1)).squeeze(-1).tolist()
    most = min(max(alternatives, default=0), logits.shape[-1])
    values, ids = logprobs.topk(most, dim=-1)
    return [
        TokenLogprob(token, logprob, tuple(zip(row_ids[:count], row_values[:count], strict=True)))
        for token, logprob, count, row_ids, row_values in zip(
            tokens, chosen, alternatives, ids.tolist(), values.tolist(), strict=True
        )
    ]


def _softmax(logits: Tensor, params: Sequence[SamplingParams], rows: Sequence[int]) -> Tensor:
    scaled = logits[rows].float()
    # Subtracting the maximum first keeps tiny temperatures from overflowing to infinities.
    scaled = scaled - scaled.amax(dim=-1, keepdim=True)
    temperatures = _column([p.temperature for p in params], rows, logits)
    # One that float32 rounds to 0 would make 0 / 0 of the likeliest token.
    return (scaled / temperatures.clamp(min=torch.finfo(torch.float32).tiny)).softmax(dim=-1)


@dataclass(frozen=True)
class _Limits:
    """Which tokens may be drawn; every tensor ``[rows, 1]``."""

    top_p: Tensor
    top_k: Tensor
    min_p: Tensor

    def of(self, rows: Tensor) -> "_Limits":
        return _Limits(self.top_p[rows], self.top_k[rows], self.min_p[rows])


def _is_truncated(params: SamplingParams) -> bool:
    return params.top_p < 1 or params.top_k is not None or params.min_p > 0


def _draw_truncated(probabilities: Tensor, limits: _Limits, u: Tensor) -> Tensor:
    """Draw from the tokens within ``limits``; ``[rows]``."""
    vocabulary = probabilities.shape[-1]
    values, ids = probabilities.topk(min(_CANDIDATES, vocabulary), dim=-1)
    tokens, unsure = _draw_sorted(values, ids, limits, u, vocabulary)
    # Which rows need the whole vocabulary is told by each row for itself, so that no row's draw depends on another's.
    if values.shape[-1] < vocabulary and bool(unsure.any()):
        values, ids = probabilities[unsure].sort(dim=-1, descending=True)
        tokens[unsure] = _draw_sorted(values, ids, limits.of(unsure), u[unsure], vocabulary)[0]
    return tokens


def _draw_sorted(values: Tensor, ids: Tensor, limits: _Limits, u: Tensor, vocabulary: int) -> tuple[Tensor, Tensor]:
    """Draw from sorted probabilities; also tell for which rows tokens past the given ones might have counted.

    As elsewhere, min_p and top_k come first and top_p is a share of what they leave.
    """
    rank = torch.arange(values.shape[-1], device=values.device)
    left = (rank < limits.top_k) & (values >= limits.min_p * values[:, :1])
    narrowed = (limits.top_k < vocabulary) | (limits.min_p > 0)
    mass = torch.where(narrowed, (values * left).sum(dim=-1, keepdim=True), 1.0)
    # A token is in the nucleus if those before it have not reached the limit yet; the first always is.
    kept = left & ((values.cumsum(dim=-1) - values < limits.top_p * mass) | (rank == 0))
    unsure = kept[:, -1] | (narrowed.squeeze(-1) & left[:, -1])
    return ids.gather(-1, _invert(values * kept, u).unsqueeze(-1)).squeeze(-1), unsure


def _invert(weights: Tensor, u: Tensor) -> Tensor:
    """Invert each row's cumulative distribution at ``u`` (``[rows, 1]``); weights need not sum to one; ``[rows]``."""
    cumulative = weights.double().cumsum(dim=-1)
    target = u.double() * cumulative[:, -1:]
    found = torch.searchsorted(cumulative, target, right=True).squeeze(-1)
    return found.clamp(max=weights.shape[-1] - 1)


def _column(values: Sequence[float], rows: Sequence[int], like: Tensor) -> Tensor:
    return torch.tensor([values[row] for row in rows], device=like.device, dtype=torch.float32).unsqueeze(-1)
