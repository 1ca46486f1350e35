"""The circuit-discovery baseline that RASteer (arXiv:2507.00322) is compared with: heads ranked by activation patching.

A clean prompt has a counterfactual twin that asks for another answer. A head matters if its output from the
counterfactual run, put into the clean run, moves the prediction from the one answer to the other.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from steering_profiles.errors import TaskError
from steering_profiles.evaluation.accuracy import equal_length_batches
from steering_profiles.fitting.components import Component
from steering_profiles.fitting.projection import record_activations
from steering_profiles.models import LoadedModel
from steering_profiles.progress import Progress, Silent
from steering_profiles.tasks.task import Example, Pair


@torch.inference_mode()
def rank_by_patching(loaded: LoadedModel, pairs: Sequence[Pair], progress: Progress | None = None) -> list[Component]:
    """Return the heads, those with the largest mean effect first.

    A head's effect on a pair is half the sum of the relative fall of P(answer) and the relative rise of
    P(counterfactual answer). Heads are patched at the last position, where the answer is read: that is defined for
    twins of different lengths too. Only pairs count whose clean prompt is answered right and whose counterfactual
    flips the prediction.

    Raises:
        TaskError: there is no such pair.
    """
    progress = progress or Silent()
    kept = _usable(loaded, pairs)
    if not kept:
        raise TaskError(f"none of {len(pairs)} counterfactual prompts flips a right answer, so nothing can be patched")
    sizes = loaded.anatomy.sizes
    patches = record_activations(loaded, [pair.counterfactual for pair in kept]).z.to(loaded.dtype)
    effect = torch.zeros(sizes.layers, sizes.heads, dtype=torch.double)
    batches = list(equal_length_batches([pair.clean for pair in kept]))
    progress.stage("patching heads", len(batches) * sizes.layers)
    for indices in batches:
        effect += _effects(loaded, [kept[index] for index in indices], patches[:, indices], progress)
    order = sorted(range(effect.numel()), key=lambda i: (-effect.flatten()[i].item(), i))
    return [Component("head", *divmod(i, sizes.heads)) for i in order]


def _usable(loaded: LoadedModel, pairs: Sequence[Pair]) -> list[Pair]:
    clean = _next_tokens(loaded, [pair.clean for pair in pairs])
    twin = _next_tokens(loaded, [pair.counterfactual for pair in pairs])
    return [p for p, one, other in zip(pairs, clean, twin, strict=True) if one == p.clean.answer and other != one]


def _next_tokens(loaded: LoadedModel, examples: Sequence[Example]) -> list[int]:
    predicted = [0] * len(examples)
    for indices in equal_length_batches(examples):
        tokens = torch.tensor([examples[index].prompt for index in indices], device=loaded.input_device)
        logits = loaded.model(input_ids=tokens, use_cache=False, logits_to_keep=1).logits[:, -1]
        for index, token in zip(indices, logits.argmax(dim=-1).tolist(), strict=True):
            predicted[index] = token
    return predicted


def _effects(loaded: LoadedModel, pairs: Sequence[Pair], patches: Tensor, progress: Progress) -> Tensor:
    """Return every head's summed effect on pairs of one length; ``patches`` is ``[layers, pairs, heads, head_dim]``."""
    heads = loaded.anatomy.sizes.heads
    tokens = torch.tensor([pair.clean.prompt for pair in pairs], device=loaded.input_device)
    answers = torch.tensor([[pair.clean.answer, pair.counterfactual.answer] for pair in pairs])
    # A patch at the last position changes nothing before it: what comes before is computed once.
    before = loaded.model(input_ids=tokens[:, :-1], use_cache=True).past_key_values if tokens.shape[1] > 1 else None

    def probabilities(repeats: int) -> Tensor:
        """Of both answers, ``[pairs * repeats, 2]``."""
        past = None if before is None else _repeated(before, repeats)
        last = tokens[:, -1:].repeat_interleave(repeats, dim=0)
        logits = loaded.model(input_ids=last, past_key_values=past, use_cache=True).logits[:, -1]
        likely: Tensor = logits.double().softmax(dim=-1).cpu().gather(-1, answers.repeat_interleave(repeats, dim=0))
        return likely

    plain = probabilities(1).unsqueeze(1)
    effects = []
    for layer, module in enumerate(loaded.anatomy.layers):
        with _patched(module.head_output, patches[layer]):
            changed = probabilities(heads).unflatten(0, (len(pairs), heads))
        relative = (changed - plain) / plain
        effects.append((relative[..., 1] - relative[..., 0]).sum(dim=0) / 2)
        progress.advance()
    return torch.stack(effects)


def _repeated(cache: DynamicCache, repeats: int) -> DynamicCache:
    """Return a copy of ``cache`` with every row ``repeats`` times."""
    repeated = copy.copy(cache)
    # Each layer with what else it knows: one with a sliding window has forgotten keys, and counts them.
    repeated.layers = [copy.copy(layer) for layer in cache.layers]
    repeated.batch_repeat_interleave(repeats)
    return repeated


@contextmanager
def _patched(head_output: nn.Module, patch: Tensor) -> Iterator[None]:
    """Replace head h in every h-th of ``heads`` rows per pair; ``patch`` is ``[pairs, heads, head_dim]``."""
    count, heads, width = patch.shape

    def hook(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        z = args[0].clone().view(count, heads, heads, width)  # pairs, rows, heads: one token each
        z.diagonal(dim1=1, dim2=2).copy_(patch.to(z).transpose(1, 2))
        return (z.view_as(args[0]), *args[1:])

    handle = head_output.register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()
