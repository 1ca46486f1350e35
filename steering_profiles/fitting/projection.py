"""What each component says about the next token: its contribution through the logit lens.

RASteer (arXiv:2507.00322), projection: at the last position, ``a[l,h] @ W_U`` with ``a[l,h] = W_O[l,h] z[l,h]`` for a
head and ``m[l,i] v[l,i] @ W_U`` for a neuron, the final norm's gain folded into ``W_U`` and its rows centred over the
vocabulary. Where a norm stands between a component and the residual stream, its gain and the scale it
had are part of what the component contributes (``models/contributions``).

Of all those logits only two things are wanted: those of a few tokens, and whether they reach a share ``tau`` of the
largest, which is a question about the whole vocabulary. For a head it can nearly always be answered without that: as
soon as one token's logit is so large that ``tau`` times it is out of reach, it is out of reach of the largest too. The
tokens that a head writes most on a few of the prompts serve for that; the whole vocabulary is looked at where they do
not decide. For a neuron the largest logit is known beforehand, ``m max(u)`` or ``m min(u)`` by the sign of ``m``.
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
"""A neuron is looked at if some answer is among as many tokens that it writes most, or least."""

_PILOTS = 16  # prompts on which a head's largest logits are looked up among all tokens
_MOST_WRITTEN = 16  # tokens kept of each
_ROWS_AT_ONCE = 256  # bounds the [rows, vocab] block held in memory


@dataclass(frozen=True)
class Projection:
    """What each component says on every prompt about the tokens that are asked about."""

    components: tuple[Component, ...]
    logits: Tensor
    """``[components, prompts, tokens]``, float32."""
    promotes: Tensor
    """``[components, prompts, tokens]``: whether it is positive and at least ``tau`` times the largest of all."""

    def __add__(self, other: "Projection") -> "Projection":
        """Put the components of two projections of the same prompts together."""
        return Projection(
            self.components + other.components,
            torch.cat([self.logits, other.logits]),
            torch.cat([self.promotes, other.promotes]),
        )


@torch.inference_mode()
def project_heads(
    loaded: LoadedModel, activations: "Activations", asked: AnswerTokens, progress: Progress | None = None
) -> Projection:
    """Project every head at the last position of every prompt."""
    progress = progress or Silent()
    sizes = loaded.anatomy.sizes
    z = activations.z * activations.head_scale[..., None, None]
    unembedding = loaded.anatomy.unembedding_weight()
    tokens, place = asked.tokens.unique(return_inverse=True)
    of_asked = unembedding[:, tokens.to(unembedding.device)]
    logits, promotes = [], []
    progress.stage("projecting heads onto the vocabulary", sizes.layers)
    for layer in range(sizes.layers):
        weight = loaded.anatomy.head_output_weight(layer).to(unembedding)
        written = torch.einsum("phk,hkd->hpd", z[layer].to(unembedding), weight)
        of_heads = (written @ of_asked).cpu()
        for head, most in enumerate(_most_written(written, unembedding)):
            asked_logits = of_heads[head].gather(-1, place)
            reached = (written[head] @ unembedding[:, most]).amax(dim=-1).cpu()
            open_ = _is_promoted(asked_logits, reached).any(dim=-1).nonzero().squeeze(-1)
            reached[open_] = _largest(z[layer, open_, head].to(unembedding), weight[head], unembedding).cpu()
            logits.append(asked_logits)
            promotes.append(_is_promoted(asked_logits, reached))
        progress.advance()
    components = tuple(Component("head", layer, head) for layer in range(sizes.layers) for head in range(sizes.heads))
    return Projection(components, torch.stack(logits), torch.stack(promotes))


@torch.inference_mode()
def select_neurons(loaded: LoadedModel, asked: AnswerTokens, progress: Progress | None = None) -> dict[int, Tensor]:
    """Return per layer the neurons that write some answer among their top or bottom ``STATIC_RANK`` tokens.

    RASteer's static filter: whatever a neuron's activation, it can promote no other.
    """
    progress = progress or Silent()
    sizes = loaded.anatomy.sizes
    unembedding = loaded.anatomy.unembedding_weight()
    answers = asked.tokens.unique().tolist()
    selected = {}
    progress.stage("selecting neurons by what they write", sizes.layers)
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
    loaded: LoadedModel, activations: "Activations", selected: Mapping[int, Tensor], asked: AnswerTokens
) -> Projection:
    """Project the ``selected`` neurons, per layer, which are those recorded, at the last position of every prompt."""
    unembedding = loaded.anatomy.unembedding_weight()
    tokens, place = asked.tokens.unique(return_inverse=True)
    components, logits, promotes = [], [], []
    for layer, neurons in selected.items():
        weight = loaded.anatomy.neuron_output_weight(layer).to(unembedding)
        m = activations.m[layer] * activations.mlp_scale[layer].unsqueeze(-1)
        for start in range(0, len(neurons), _ROWS_AT_ONCE):
            some = neurons[start : start + _ROWS_AT_ONCE]
            written = weight[some.to(weight.device)] @ unembedding
            highest, lowest = written.amax(dim=-1).cpu(), written.amin(dim=-1).cpu()
            of_asked = written[:, tokens.to(written.device)].cpu()
            activation = (m[:, start : start + _ROWS_AT_ONCE]).T  # [neurons, prompts]
            values = of_asked[:, place] * activation.unsqueeze(-1)
            largest = torch.where(activation > 0, activation * highest[:, None], activation * lowest[:, None])
            logits.append(values)
            promotes.append(_is_promoted(values, largest))
            components += [Component("neuron", layer, neuron) for neuron in some.tolist()]
    if not components:
        empty = torch.empty(0, *asked.tokens.shape)
        return Projection((), empty, empty.bool())
    return Projection(tuple(components), torch.cat(logits), torch.cat(promotes))


@dataclass(frozen=True)
class Activations:
    """What components computed at the last position of each prompt."""

    z: Tensor
    """``[layers, prompts, heads, head_dim]``: the heads' outputs, float32."""
    m: dict[int, Tensor]
    """Per layer ``[prompts, selected neurons]``: the neurons' activations, float32."""
    head_scale: Tensor
    """``[layers, prompts]``, float32: the scale of the norm that the heads' outputs pass; 1 where there is none."""
    mlp_scale: Tensor
    """``[layers, prompts]``, float32: the same for the neurons'."""


@torch.inference_mode()
def record_activations(
    loaded: LoadedModel,
    examples: Sequence[Example],
    neurons: Mapping[int, Tensor] | None = None,
    progress: Progress | None = None,
) -> Activations:
    """Run the plain model on ``examples`` and return what its heads, and the given ``neurons``, computed."""
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
    """Whether ``logits`` ``[..., tokens]`` reach their share of ``largest`` ``[...]``."""
    return (logits > 0) & (logits >= PROMOTION_THRESHOLD * largest.unsqueeze(-1))


def _most_written(written: Tensor, unembedding: Tensor) -> list[Tensor]:
    """Return the tokens that each head writes most on a few prompts; ``written``: ``[heads, prompts, hidden_size]``."""
    step = max(1, written.shape[1] // _PILOTS)
    tokens = (written[:, ::step] @ unembedding).topk(min(_MOST_WRITTEN, unembedding.shape[1])).indices
    return [of_head.unique() for of_head in tokens]


def _largest(z: Tensor, weight: Tensor, unembedding: Tensor) -> Tensor:
    """Return the largest logit over the vocabulary, ``[rows]``, of a head with outputs ``z``, ``[rows, head_dim]``."""
    rows, hidden_size = z.shape[0], unembedding.shape[0]
    # Made once, the head's own matrix to the vocabulary makes each row cheaper; a few rows do not earn it back.
    folded = rows * (hidden_size - z.shape[1]) > z.shape[1] * hidden_size
    left, right = (z, weight @ unembedding) if folded else (z @ weight, unembedding)
    largest = torch.empty(rows, device=z.device)
    for start in range(0, rows, _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        largest[part] = (left[part] @ right).amax(dim=-1)
    return largest
