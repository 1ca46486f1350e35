"""What each attention head says about the next token: its contribution through the logit lens.

RASteer (arXiv:2507.00322), projection: at the last position, ``a[l,h] @ W_U`` with ``a[l,h] = W_O[l,h] z[l,h]``, the
final norm's gain folded into ``W_U`` and its rows centred over the vocabulary. The matrix ``W_O[l,h] W_U`` is made once
per head, so that a prompt costs ``head_dim * vocab`` multiply-adds and not ``width * vocab``.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from steering_profiles.evaluation.accuracy import equal_length_batches
from steering_profiles.models import LoadedModel
from steering_profiles.progress import Progress, Silent
from steering_profiles.tasks.task import Example

_PROMPTS_AT_ONCE = 256  # bounds the [prompts, vocab] block held in memory


@dataclass(frozen=True)
class HeadProjection:
    """Every head's projected logits on every prompt, as far as ranking needs them."""

    candidates: Tensor
    """``[layers, heads, prompts, candidates]``: the logits of the candidate answers."""
    maximum: Tensor
    """``[layers, heads, prompts]``: the largest logit over the vocabulary."""


@torch.inference_mode()
def project_heads(
    loaded: LoadedModel, examples: Sequence[Example], candidates: Sequence[int], progress: Progress | None = None
) -> HeadProjection:
    """Project every head at the last position of every prompt onto the vocabulary, in float32."""
    progress = progress or Silent()
    sizes = loaded.anatomy.sizes
    progress.stage("running the training prompts", len(examples))
    z = head_outputs(loaded, examples, progress)
    unembedding = loaded.anatomy.unembedding_weight()
    shape = (sizes.layers, sizes.heads, len(examples))
    logits, maximum = torch.empty(*shape, len(candidates)), torch.empty(shape)
    progress.stage("projecting heads onto the vocabulary", sizes.layers * sizes.heads)
    for layer in range(sizes.layers):
        weight = loaded.anatomy.head_output_weight(layer).float()
        for head in range(sizes.heads):
            to_vocabulary = weight[head].to(unembedding.device) @ unembedding
            for start in range(0, len(examples), _PROMPTS_AT_ONCE):
                part = slice(start, start + _PROMPTS_AT_ONCE)
                projected = z[layer, part, head].to(unembedding.device) @ to_vocabulary
                logits[layer, head, part] = projected[:, list(candidates)].cpu()
                maximum[layer, head, part] = projected.amax(dim=-1).cpu()
            progress.advance()
    return HeadProjection(logits, maximum)


@torch.inference_mode()
def head_outputs(loaded: LoadedModel, examples: Sequence[Example], progress: Progress | None = None) -> Tensor:
    """Return every head's output ``z`` at the last position of each prompt: ``[layers, prompts, heads, head_dim]``."""
    progress = progress or Silent()
    sizes = loaded.anatomy.sizes
    z = torch.empty(sizes.layers, len(examples), sizes.heads, sizes.head_dim)
    for indices in equal_length_batches(examples):
        tokens = torch.tensor([examples[index].prompt for index in indices], device=loaded.input_device)
        with _last_inputs([layer.head_output for layer in loaded.anatomy.layers]) as inputs:
            loaded.model(input_ids=tokens, use_cache=False, logits_to_keep=1)
        for layer, last in inputs.items():
            z[layer, indices] = last.float().cpu().view(len(indices), sizes.heads, sizes.head_dim)
        progress.advance(len(indices))
    return z


@contextmanager
def _last_inputs(modules: Sequence[nn.Module]) -> Iterator[dict[int, Tensor]]:
    """Record, by index, what each module gets at the last position: ``[batch, features]``."""
    inputs: dict[int, Tensor] = {}

    def record(index: int, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        inputs[index] = args[0][:, -1]

    handles = [module.register_forward_pre_hook(partial(record, i)) for i, module in enumerate(modules)]
    try:
        yield inputs
    finally:
        for handle in handles:
            handle.remove()
