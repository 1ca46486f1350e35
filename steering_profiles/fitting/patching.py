"""Activation patching of single heads at the last position, where the model predicts the answer."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from steering_profiles.fitting.projection import record_activations
from steering_profiles.models import LoadedModel
from steering_profiles.progress import Progress, Silent
from steering_profiles.tasks.batches import equal_length_batches
from steering_profiles.tasks.task import Pair


@dataclass(frozen=True, eq=False)
class PatchedProbabilities:
    """Probabilities on each pair's clean prompt of the clean and the counterfactual answer, without and with patches.

    Both tensors are float64.
    """

    plain: Tensor
    """``[pairs, 2]``: without a patch."""
    changed: Tensor
    """``[layers, heads, pairs, 2]``: with the output of that head taken from the counterfactual run."""

    @property
    def fall(self) -> Tensor:
        """Relative decrease of P(answer): ``[layers, heads, pairs]``."""
        return (self.plain[..., 0] - self.changed[..., 0]) / self.plain[..., 0]

    @property
    def rise(self) -> Tensor:
        """Relative increase of P(counterfactual answer): ``[layers, heads, pairs]``."""
        return (self.changed[..., 1] - self.plain[..., 1]) / self.plain[..., 1]


@torch.inference_mode()
def patch_heads(loaded: LoadedModel, pairs: Sequence[Pair], progress: Progress | None = None) -> PatchedProbabilities:
    """Patch every head, one at a time, into the clean run of every pair.

    Only the last position is patched, so that the two prompts of a pair may differ in length.
    """
    progress = progress or Silent()
    sizes = loaded.anatomy.sizes
    patches = record_activations(loaded, [pair.counterfactual for pair in pairs]).z.to(loaded.dtype)
    plain = torch.empty(len(pairs), 2, dtype=torch.double)
    changed = torch.empty(sizes.layers, sizes.heads, len(pairs), 2, dtype=torch.double)
    batches = list(equal_length_batches([pair.clean for pair in pairs]))
    progress.stage("patching heads", len(batches) * sizes.layers)
    for indices in batches:
        batch = [pairs[index] for index in indices]
        plain[indices], changed[:, :, indices] = _probabilities(loaded, batch, patches[:, indices], progress)
    return PatchedProbabilities(plain, changed)


def _probabilities(
    loaded: LoadedModel, pairs: Sequence[Pair], patches: Tensor, progress: Progress
) -> tuple[Tensor, Tensor]:
    """Return plain and changed probabilities for pairs of one length.

    ``patches`` is ``[layers, pairs, heads, head_dim]``.
    """
    heads = loaded.anatomy.sizes.heads
    tokens = torch.tensor([pair.clean.prompt for pair in pairs], device=loaded.input_device)
    answers = torch.tensor([[pair.clean.answer, pair.counterfactual.answer] for pair in pairs])
    # A patch at the last position changes no earlier position, so the KV cache of those is computed once.
    before = loaded.model(input_ids=tokens[:, :-1], use_cache=True).past_key_values if tokens.shape[1] > 1 else None

    def probabilities(repeats: int) -> Tensor:
        """Return the probabilities of both answers: ``[pairs * repeats, 2]``."""
        past = None if before is None else _repeated(before, repeats)
        last = tokens[:, -1:].repeat_interleave(repeats, dim=0)
        logits = loaded.model(input_ids=last, past_key_values=past, use_cache=True).logits[:, -1]
        likely: Tensor = logits.double().softmax(dim=-1).cpu().gather(-1, answers.repeat_interleave(repeats, dim=0))
        return likely

    plain = probabilities(1)
    changed = []
    for layer, module in enumerate(loaded.anatomy.layers):
        with _patched(module.head_output, patches[layer]):
            changed.append(probabilities(heads).unflatten(0, (len(pairs), heads)).transpose(0, 1))
        progress.advance()
    return plain, torch.stack(changed)


def _repeated(cache: DynamicCache, repeats: int) -> DynamicCache:
    """Return a copy of ``cache`` with every sequence repeated ``repeats`` times."""
    repeated = copy.copy(cache)
    # Layers are copied with all their state: a sliding-window layer counts the keys that it has dropped.
    repeated.layers = [copy.copy(layer) for layer in cache.layers]
    repeated.batch_repeat_interleave(repeats)
    return repeated


@contextmanager
def _patched(head_output: nn.Module, patch: Tensor) -> Iterator[None]:
    """Replace the output of head h in row h of each pair's rows; ``patch`` is ``[pairs, heads, head_dim]``."""
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
