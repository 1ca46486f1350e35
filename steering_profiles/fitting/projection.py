"""Project the contribution of each component onto the vocabulary through the logit lens.

RASteer (arXiv:2507.00322), projection: at the last position, ``a[l,h] @ W_U`` with ``a[l,h] = W_O[l,h] z[l,h]`` for a
head and ``m[l,i] v[l,i] @ W_U`` for a neuron. The final norm's gain is folded into ``W_U`` and its rows are centred
over the vocabulary. If a norm stands between a component and the residual stream, its gain and scale are part of the
component's contribution (``models/contributions``).

Only the logits of a few tokens are needed, and whether each reaches a share ``tau`` of the largest logit over the whole
vocabulary. For a head this is nearly always decided without computing all logits: a token that does not reach ``tau``
times the logit of *some* token does not reach ``tau`` times the largest logit either. The tokens with the largest
logits on a few pilot prompts serve as such tokens; all logits are computed only for the prompts that they do not
decide. For a neuron the largest logit follows from the sign of ``m``: ``m max(u)`` or ``m min(u)``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from steering_profiles.fitting.answer_tokens import AnswerTokens
from steering_profiles.fitting.components import Component
from steering_profiles.models import LoadedModel, recorded
from steering_profiles.progress import Progress, Silent
from steering_profiles.tasks.batches import equal_length_batches
from steering_profiles.tasks.task import Example

PROMOTION_THRESHOLD = 0.5
"""``tau``: a component promotes a token whose logit is at least this share of its largest."""
STATIC_RANK = 50
"""A neuron is selected if an answer is among this number of tokens with its largest or smallest logits."""

_PILOTS = 16
"""Number of pilot prompts on which all logits of a head are computed."""
_LARGEST_TOKENS = 16
"""Number of tokens with the largest logits that are kept for each pilot prompt."""
_ROWS_AT_ONCE = 256
"""Rows of ``[rows, vocab]`` blocks; limits memory."""


@dataclass(frozen=True)
class Projection:
    """Logits of the answer tokens in each component's contribution, per prompt."""

    components: tuple[Component, ...]
    logits: Tensor
    """``[components, prompts, tokens]``, float32."""
    promotes: Tensor
    """``[components, prompts, tokens]``: whether the logit is positive and at least ``tau`` times the largest one."""

    def __add__(self, other: "Projection") -> "Projection":
        """Concatenate the components of two projections of the same prompts."""
        return Projection(
            self.components + other.components,
            torch.cat([self.logits, other.logits]),
            torch.cat([self.promotes, other.promotes]),
        )


@torch.inference_mode()
def project_heads(
    loaded: LoadedModel, activations: "Activations", answer_tokens: AnswerTokens, progress: Progress | None = None
) -> Projection:
    """Project every head at the last position of every prompt."""
    progress = progress or Silent()
    sizes = loaded.anatomy.sizes
    z = activations.z * activations.head_scale[..., None, None]
    unembedding = loaded.anatomy.unembedding_weight()
    tokens, place = answer_tokens.tokens.unique(return_inverse=True)
    of_tokens = unembedding[:, tokens.to(unembedding.device)]
    logits, promotes = [], []
    progress.stage("projecting heads onto the vocabulary", sizes.layers)
    for layer in range(sizes.layers):
        weight = loaded.anatomy.head_output_weight(layer).to(unembedding)
        written = torch.einsum("phk,hkd->hpd", z[layer].to(unembedding), weight)
        of_heads = (written @ of_tokens).cpu()
        for head, most in enumerate(_pilot_tokens(written, unembedding)):
            token_logits = of_heads[head].gather(-1, place)
            reached = (written[head] @ unembedding[:, most]).amax(dim=-1).cpu()
            open_ = _is_promoted(token_logits, reached).any(dim=-1).nonzero().squeeze(-1)
            reached[open_] = _largest(z[layer, open_, head].to(unembedding), weight[head], unembedding).cpu()
            logits.append(token_logits)
            promotes.append(_is_promoted(token_logits, reached))
        progress.advance()
    components = tuple(Component("head", layer, head) for layer in range(sizes.layers) for head in range(sizes.heads))
    return Projection(components, torch.stack(logits), torch.stack(promotes))


@torch.inference_mode()
def select_neurons(
    loaded: LoadedModel, answer_tokens: AnswerTokens, progress: Progress | None = None
) -> dict[int, Tensor]:
    """Return per layer the neurons with an answer among the ``STATIC_RANK`` tokens of largest or smallest logit.

    This is RASteer's static filter: the other neurons promote no answer, whatever their activation.
    """
    progress = progress or Silent()
    sizes = loaded.anatomy.sizes
    unembedding = loaded.anatomy.unembedding_weight()
    answers = answer_tokens.tokens.unique().tolist()
    selected = {}
    progress.stage("selecting neurons by their output weights", sizes.layers)
    for layer in range(sizes.layers):
        weight = loaded.anatomy.neuron_output_weight(layer).to(unembedding)
        kept = []
        for start in range(0, sizes.neurons, _ROWS_AT_ONCE):
            written = weight[start : start + _ROWS_AT_ONCE] @ unembedding
            rank = min(STATIC_RANK, written.shape[-1])
            ends = torch.cat([written.topk(rank).indices, written.topk(rank, largest=False).indices], dim=-1)
            found = torch.isin(ends, torch.tensor(answers, device=ends.device)).any(dim=-1)
            kept.append(start + found.nonzero().squeeze(-1))
        selected[layer] = torch.cat(kept).cpu()
        progress.advance()
    return selected


@torch.inference_mode()
def project_neurons(
    loaded: LoadedModel, activations: "Activations", selected: Mapping[int, Tensor], answer_tokens: AnswerTokens
) -> Projection:
    """Project each layer's ``selected`` neurons, whose activations were recorded, at every prompt's last position."""
    unembedding = loaded.anatomy.unembedding_weight()
    tokens, place = answer_tokens.tokens.unique(return_inverse=True)
    components, logits, promotes = [], [], []
    for layer, neurons in selected.items():
        weight = loaded.anatomy.neuron_output_weight(layer).to(unembedding)
        m = activations.m[layer] * activations.mlp_scale[layer].unsqueeze(-1)
        for start in range(0, len(neurons), _ROWS_AT_ONCE):
            some = neurons[start : start + _ROWS_AT_ONCE]
            written = weight[some.to(weight.device)] @ unembedding
            highest, lowest = written.amax(dim=-1).cpu(), written.amin(dim=-1).cpu()
            of_tokens = written[:, tokens.to(written.device)].cpu()
            activation = (m[:, start : start + _ROWS_AT_ONCE]).T  # [neurons, prompts]
            values = of_tokens[:, place] * activation.unsqueeze(-1)
            largest = torch.where(activation > 0, activation * highest[:, None], activation * lowest[:, None])
            logits.append(values)
            promotes.append(_is_promoted(values, largest))
            components += [Component("neuron", layer, neuron) for neuron in some.tolist()]
    if not components:
        empty = torch.empty(0, *answer_tokens.tokens.shape)
        return Projection((), empty, empty.bool())
    return Projection(tuple(components), torch.cat(logits), torch.cat(promotes))


@dataclass(frozen=True)
class Activations:
    """Activations of heads and neurons at the last position of each prompt."""

    z: Tensor
    """``[layers, prompts, heads, head_dim]``: the heads' outputs, float32."""
    m: dict[int, Tensor]
    """Per layer ``[prompts, selected neurons]``: the neurons' activations, float32."""
    head_scale: Tensor
    """``[layers, prompts]``, float32: scale of the norm after the heads' outputs; 1 without such a norm."""
    mlp_scale: Tensor
    """``[layers, prompts]``, float32: scale of the norm after the MLP's output; 1 without such a norm."""


@torch.inference_mode()
def record_activations(
    loaded: LoadedModel,
    examples: Sequence[Example],
    neurons: Mapping[int, Tensor] | None = None,
    progress: Progress | None = None,
) -> Activations:
    """Run the plain model on ``examples`` and return the activations of its heads and of the given ``neurons``."""
    progress, neurons = progress or Silent(), neurons or {}
    sizes = loaded.anatomy.sizes
    z = torch.empty(sizes.layers, len(examples), sizes.heads, sizes.head_dim)
    m = {layer: torch.empty(len(examples), len(some)) for layer, some in neurons.items()}
    head_scale, mlp_scale = torch.empty(2, sizes.layers, len(examples))
    progress.stage("running the training prompts", len(examples))
    for indices in equal_length_batches(examples):
        tokens = torch.tensor([examples[index].prompt for index in indices], device=loaded.input_device)
        with recorded(loaded.anatomy, range(sizes.layers)) as states:
            loaded.model(input_ids=tokens, use_cache=False, logits_to_keep=1)
        for layer, state in states.items():
            z[layer, indices] = state.z.float().cpu().view(len(indices), sizes.heads, sizes.head_dim)
            head_scale[layer, indices] = state.head_scale.float().cpu().squeeze(-1)
            mlp_scale[layer, indices] = state.mlp_scale.float().cpu().squeeze(-1)
            if layer in neurons and state.m is not None:
                m[layer][indices] = state.m[:, neurons[layer].to(state.m.device)].float().cpu()
        progress.advance(len(indices))
    return Activations(z, m, head_scale, mlp_scale)


def _is_promoted(logits: Tensor, largest: Tensor) -> Tensor:
    """Return whether ``logits`` ``[..., tokens]`` reach the share ``tau`` of ``largest`` ``[...]``."""
    return (logits > 0) & (logits >= PROMOTION_THRESHOLD * largest.unsqueeze(-1))


def _pilot_tokens(written: Tensor, unembedding: Tensor) -> list[Tensor]:
    """Return each head's tokens of largest logit on a few prompts; ``written``: ``[heads, prompts, hidden_size]``."""
    step = max(1, written.shape[1] // _PILOTS)
    tokens = (written[:, ::step] @ unembedding).topk(min(_LARGEST_TOKENS, unembedding.shape[1])).indices
    return [of_head.unique() for of_head in tokens]


def _largest(z: Tensor, weight: Tensor, unembedding: Tensor) -> Tensor:
    """Return the largest logit over the vocabulary, ``[rows]``, of a head with outputs ``z``, ``[rows, head_dim]``."""
    rows, hidden_size = z.shape[0], unembedding.shape[0]
    # Folding the weights once makes each row cheaper, which pays off only with many rows.
    folded = rows * (hidden_size - z.shape[1]) > z.shape[1] * hidden_size
    left, right = (z, weight @ unembedding) if folded else (z @ weight, unembedding)
    largest = torch.empty(rows, device=z.device)
    for start in range(0, rows, _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        largest[part] = (left[part] @ right).amax(dim=-1)
    return largest
