"""Circuit discovery, the baseline of RASteer (arXiv:2507.00322): rank heads by activation patching.

Each clean prompt has a counterfactual prompt with another answer. A head is important if replacing its output in the
clean run by its output in the counterfactual run moves the prediction from the one answer to the other.
"""

from collections.abc import Sequence

import torch

from steering_profiles.errors import TaskError
from steering_profiles.fitting.components import Component
from steering_profiles.fitting.patching import patch_heads
from steering_profiles.models import LoadedModel
from steering_profiles.progress import Progress
from steering_profiles.tasks.batches import equal_length_batches
from steering_profiles.tasks.task import Example, Pair


@torch.inference_mode()
def rank_by_patching(loaded: LoadedModel, pairs: Sequence[Pair], progress: Progress | None = None) -> list[Component]:
    """Return the heads in descending order of their mean effect.

    A head's effect on a pair is half the sum of the relative fall of P(answer) and the relative rise of
    P(counterfactual answer). Only the last position is patched, so the two prompts of a pair may differ in length.
    Only pairs are used whose clean prompt is answered correctly and whose counterfactual prompt changes the answer.

    Raises:
        TaskError: there is no such pair.
    """
    kept = _usable(loaded, pairs)
    if not kept:
        raise TaskError(
            f"none of the {len(pairs)} counterfactual prompts changes a correct answer, so no head can be patched"
        )
    patched = patch_heads(loaded, kept, progress)
    effect = ((patched.fall + patched.rise) / 2).mean(dim=-1).flatten()
    order = sorted(range(len(effect)), key=lambda i: (-effect[i].item(), i))
    return [Component("head", *divmod(i, loaded.anatomy.sizes.heads)) for i in order]


def _usable(loaded: LoadedModel, pairs: Sequence[Pair]) -> list[Pair]:
    clean = _next_tokens(loaded, [pair.clean for pair in pairs])
    counterfactual = _next_tokens(loaded, [pair.counterfactual for pair in pairs])
    return [
        p for p, one, other in zip(pairs, clean, counterfactual, strict=True) if one == p.clean.answer and other != one
    ]


def _next_tokens(loaded: LoadedModel, examples: Sequence[Example]) -> list[int]:
    predicted = [0] * len(examples)
    for indices in equal_length_batches(examples):
        tokens = torch.tensor([examples[index].prompt for index in indices], device=loaded.input_device)
        logits = loaded.model(input_ids=tokens, use_cache=False, logits_to_keep=1).logits[:, -1]
        for index, token in zip(indices, logits.argmax(dim=-1).tolist(), strict=True):
            predicted[index] = token
    return predicted
