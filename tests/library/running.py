"""Running small models with steering, without it, and with changed weights."""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from steering_profiles.models import LoadedModel, assemble
from steering_profiles.steering import Steering, TextReader, attach
from steering_profiles.steering import steered_logits as logits_where_held

TOKENS = torch.tensor([[72, 69, 76, 76, 79, 12, 86, 79, 82, 76, 68]])
ROUND_OFF = {"atol": 1e-11, "rtol": 1e-11}


@torch.no_grad()
def logits(loaded: LoadedModel, tokens: Tensor = TOKENS) -> Tensor:
    """The stock model's logits, ``[batch, seq, vocab]``."""
    output: Tensor = loaded.model(input_ids=tokens, use_cache=False).logits
    return output


def steered_logits(loaded: LoadedModel, *steerings: Steering, tokens: Tensor = TOKENS) -> Tensor:
    """The logits of one batch that holds ``tokens`` once per steering."""
    handle = attach(loaded)
    try:
        with handle.applied(steerings):
            return logits(loaded, tokens.expand(len(steerings), -1))
    finally:
        handle.remove()


def with_changed_weights(loaded: LoadedModel, change: Callable[[LoadedModel], None]) -> LoadedModel:
    """A copy of the model after ``change`` to it."""
    changed = assemble(loaded.name, copy.deepcopy(loaded.model), loaded.tokenizer)
    with torch.no_grad():
        change(changed)
    return changed


def hooks_on(loaded: LoadedModel) -> int:
    """Return the number of forward hooks on the model's modules."""
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in loaded.model.modules())


@torch.no_grad()
def logits_of(loaded: LoadedModel, steering: Steering, tokens: Sequence[int], prompt_length: int = 5) -> Tensor:
    """The logits, ``[tokens, vocab]``, under hooks that test the conditions of ``steering`` at every position."""
    handle, reader = attach(loaded), TextReader(loaded.tokenizer)
    held = reader.held(steering, [(tokens, prompt_length)], len(tokens))
    logits = logits_where_held(handle, [steering], lambda: loaded.model(torch.tensor([tokens])).logits, held)
    handle.remove()
    return logits[0]
