"""Sampling of the next token, for all sequences of a batch at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from steering_server.engines.local.logits import likeliest, logprobs
from steering_server.generation.requests import SamplingParams, TokenLogprob

_CANDIDATES = 1024
"""Number of likeliest tokens that a truncated draw considers before it sorts the whole vocabulary."""

_LARGEST_DRAW = 1 - 2**-24
"""The largest float32 below 1."""


def sample(logits: Tensor, params: Sequence[SamplingParams], uniforms: Sequence[float]) -> list[int]:
    """Return one token per sequence from ``logits`` (``[sequences, vocab]``).

    ``uniforms`` are numbers in [0, 1) drawn by each sequence's own generator: a token depends only on the sequence's
    logits, parameters and number. At temperature 0 it is the likeliest token, the lowest id among equals.
    """
    tokens = likeliest(logits)
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


def logprobs_of(
    logits: Tensor, tokens: Sequence[int], alternatives: Sequence[int], *, ranked: bool = False
) -> list[TokenLogprob]:
    """Return the log-probability of one token per row of ``logits`` (``[rows, vocab]``) and the likeliest tokens.

    ``alternatives`` is the number of likeliest tokens for each row. With ``ranked``, each token's rank is returned too.
    """
    if not tokens:
        return []
    # Which of several equal logits topk takes depends on their number, so only rows that want as many go together.
    ids = torch.tensor(tokens, device=logits.device).unsqueeze(-1)
    top: list[list[int]] = [[] for _ in tokens]
    for count in set(alternatives) - {0}:
        rows = [row for row, wanted in enumerate(alternatives) if wanted == count]
        likely = logits[rows].topk(min(count, logits.shape[-1]), dim=-1).indices
        for row, row_ids in zip(rows, likely.tolist(), strict=True):
            top[row] = row_ids
    most = max(map(len, top))
    filled = torch.tensor([row_ids + [0] * (most - len(row_ids)) for row_ids in top], dtype=torch.long)
    chosen, *others = logprobs(logits, torch.cat([ids, filled.to(ids.device)], dim=-1)).T.tolist()
    by_row = list(zip(*others, strict=True)) if others else [()] * len(tokens)
    ranks = _ranks(logits, ids) if ranked else [None] * len(tokens)
    return [
        TokenLogprob(token, logprob, tuple(zip(row_ids, row_logprobs, strict=False)), rank)
        for token, logprob, row_ids, row_logprobs, rank in zip(tokens, chosen, top, by_row, ranks, strict=True)
    ]


def _ranks(logits: Tensor, ids: Tensor) -> list[int]:
    """Return the rank of one token per row, 1 for the likeliest; ``ids`` is ``[rows, 1]``."""
    return [1 + above for above in (logits > logits.gather(-1, ids)).sum(dim=-1).tolist()]


def _softmax(logits: Tensor, params: Sequence[SamplingParams], rows: Sequence[int]) -> Tensor:
    scaled = logits[rows].float()
    # Subtracting the maximum first prevents infinities at tiny temperatures.
    scaled = scaled - scaled.amax(dim=-1, keepdim=True)
    temperatures = _column([p.temperature for p in params], rows, logits)
    # A temperature that float32 rounds to 0 would give 0 / 0 for the likeliest token.
    return (scaled / temperatures.clamp(min=torch.finfo(torch.float32).tiny)).softmax(dim=-1)


@dataclass(frozen=True)
class _Limits:
    """Truncation parameters; every tensor is ``[rows, 1]``."""

    top_p: Tensor
    top_k: Tensor
    min_p: Tensor

    def of(self, rows: Tensor) -> "_Limits":
        return _Limits(self.top_p[rows], self.top_k[rows], self.min_p[rows])


def _is_truncated(params: SamplingParams) -> bool:
    return params.top_p < 1 or params.top_k is not None or params.min_p > 0


def _draw_truncated(probabilities: Tensor, limits: _Limits, u: Tensor) -> Tensor:
    """Draw one token per row from those within ``limits``; returns ``[rows]``."""
    vocabulary = probabilities.shape[-1]
    values, ids = probabilities.topk(min(_CANDIDATES, vocabulary), dim=-1)
    tokens, unsure = _draw_sorted(values, ids, limits, u, vocabulary)
    # Each row decides by itself whether it needs the whole vocabulary, so that no draw depends on another row.
    if values.shape[-1] < vocabulary and bool(unsure.any()):
        values, ids = probabilities[unsure].sort(dim=-1, descending=True, stable=True)
        tokens[unsure] = _draw_sorted(values, ids, limits.of(unsure), u[unsure], vocabulary)[0]
    return tokens


def _draw_sorted(values: Tensor, ids: Tensor, limits: _Limits, u: Tensor, vocabulary: int) -> tuple[Tensor, Tensor]:
    """Draw from sorted probabilities; also return the rows for which tokens past the given ones may be needed.

    As in vLLM, min_p and top_k apply first and top_p is a share of what they leave.
    """
    rank = torch.arange(values.shape[-1], device=values.device)
    left = (rank < limits.top_k) & (values >= limits.min_p * values[:, :1])
    narrowed = (limits.top_k < vocabulary) | (limits.min_p > 0)
    # cumsum adds up each row by itself, in order; the order of sum depends on the number of rows.
    mass = torch.where(narrowed, (values * left).cumsum(dim=-1)[:, -1:], 1.0)
    # A token is in the nucleus if those before it have not reached the limit; the first always is.
    kept = left & ((values.cumsum(dim=-1) - values < limits.top_p * mass) | (rank == 0))
    unsure = kept[:, -1] | (narrowed.squeeze(-1) & left[:, -1])
    return ids.gather(-1, _invert(values * kept, u).unsqueeze(-1)).squeeze(-1), unsure


def _invert(weights: Tensor, u: Tensor) -> Tensor:
    """Invert each row's cumulative distribution at ``u`` (``[rows, 1]``); returns ``[rows]``.

    Weights need not sum to one. A token without weight is never drawn.
    """
    cumulative = weights.double().cumsum(dim=-1)
    # As float32 the largest numbers below 1 are 1, at which the last token would be drawn whatever its weight.
    target = u.double().clamp(max=_LARGEST_DRAW) * cumulative[:, -1:]
    found = torch.searchsorted(cumulative, target, right=True).squeeze(-1)
    return found.clamp(max=weights.shape[-1] - 1)


def _column(values: Sequence[float], rows: Sequence[int], like: Tensor) -> Tensor:
    return torch.tensor([values[row] for row in rows], device=like.device, dtype=torch.float32).unsqueeze(-1)
