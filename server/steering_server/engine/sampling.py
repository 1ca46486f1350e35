"""Choose the next token of every row of a batch at once."""

from collections.abc import Sequence

import torch
from torch import Tensor

from steering_server.engine.requests import SamplingParams, TokenLogprob

_NUCLEUS_CANDIDATES = 1024
"""Likeliest tokens among which a nucleus is looked for before the whole vocabulary is sorted."""


def sample(logits: Tensor, params: Sequence[SamplingParams], uniforms: Sequence[float]) -> list[int]:
    """Return one token per row of ``logits`` (``[rows, vocab]``).

    ``uniforms`` are numbers in [0, 1) drawn by each row's own generator: a row's token depends on its logits, its
    parameters and its number alone. Rows of temperature 0 take the likeliest token, the lowest id among equals.
    """
    tokens = logits.argmax(dim=-1)
    warm = [row for row, p in enumerate(params) if p.temperature > 0]
    whole = [row for row in warm if params[row].top_p >= 1]
    nucleus = [row for row in warm if params[row].top_p < 1]
    if whole:
        tokens[whole] = _invert(_softmax(logits, params, whole), _column(uniforms, whole, logits))
    if nucleus:
        top_p = _column([p.top_p for p in params], nucleus, logits)
        tokens[nucleus] = _draw_from_nucleus(
            _softmax(logits, params, nucleus), top_p, _column(uniforms, nucleus, logits)
        )
    return [int(token) for token in tokens.tolist()]


def logprobs_of(logits: Tensor, tokens: Sequence[int], alternatives: Sequence[int]) -> list[TokenLogprob]:
    """Return the log-probability of one token per row of ``logits`` (``[rows, vocab]``) and its likeliest alternatives.

    ``alternatives`` says how many of those each row wants.
    """
    if not tokens:
        return []
    logprobs = logits.float().log_softmax(dim=-1)
    chosen = logprobs.gather(-1, torch.tensor(tokens, device=logits.device).unsqueeze(-1)).squeeze(-1).tolist()
    most = max(alternatives, default=0)
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
    return (scaled / _column([p.temperature for p in params], rows, logits)).softmax(dim=-1)


def _draw_from_nucleus(probabilities: Tensor, top_p: Tensor, u: Tensor) -> Tensor:
    """Draw from the fewest likeliest tokens that together reach ``top_p`` (``[rows, 1]``); ``[rows]``."""
    values, ids = probabilities.topk(min(_NUCLEUS_CANDIDATES, probabilities.shape[-1]), dim=-1)
    tokens = _draw_sorted(values, ids, top_p, u)
    # Which rows need the whole vocabulary is told by each row for itself, so that no row's draw depends on another's.
    wide = (values.sum(dim=-1, keepdim=True) < top_p).squeeze(-1)
    if bool(wide.any()):
        values, ids = probabilities[wide].sort(dim=-1, descending=True)
        tokens[wide] = _draw_sorted(values, ids, top_p[wide], u[wide])
    return tokens


def _draw_sorted(values: Tensor, ids: Tensor, top_p: Tensor, u: Tensor) -> Tensor:
    # A token is in the nucleus if those before it have not reached the limit yet; the first always is.
    before = values.cumsum(dim=-1) - values
    nucleus = values * (before < top_p)
    return ids.gather(-1, _invert(nucleus, u).unsqueeze(-1)).squeeze(-1)


def _invert(weights: Tensor, u: Tensor) -> Tensor:
    """Invert each row's cumulative distribution at ``u`` (``[rows, 1]``); weights need not sum to one; ``[rows]``."""
    cumulative = weights.double().cumsum(dim=-1)
    target = u.double() * cumulative[:, -1:]
    found = torch.searchsorted(cumulative, target, right=True).squeeze(-1)
    return found.clamp(max=weights.shape[-1] - 1)


def _column(values: Sequence[float], rows: Sequence[int], like: Tensor) -> Tensor:
    return torch.tensor([values[row] for row in rows], device=like.device, dtype=torch.float32).unsqueeze(-1)
