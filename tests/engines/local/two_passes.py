"""Reference for gated generation: two whole passes of the stock model per token."""

from collections.abc import Sequence

import torch
from torch import Tensor

from steering_profiles.models import LoadedModel
from steering_profiles.schema import Profile
from steering_profiles.steering import Steering, attach
from tests.builders import completed, steer
from tests.engines.local.running import GREEDY


def without_gates(*profiles: Profile) -> tuple[Profile, ...]:
    return tuple(
        profile.model_copy(update={"final_layer": profile.final_layer.model_copy(update={"gate": None})})
        for profile in profiles
    )


def without_gated(*profiles: Profile) -> tuple[Profile, ...]:
    """The profiles where their gates are closed."""
    nothing = {"final_layer": type(profiles[0].final_layer)(), "tensors": {}} if profiles else {}
    return tuple(p if p.final_layer.gate is None else p.model_copy(update=nothing) for p in profiles)


@torch.no_grad()
def two_passes(loaded: LoadedModel, tokens: Sequence[int], profiles: tuple[Profile, ...]) -> tuple[Tensor, list[bool]]:
    """The logits after each of ``tokens``, and where the gate was open."""

    def one_pass(steering: Steering) -> Tensor:
        handle = attach(loaded)
        with handle.applied([steering]):
            logits: Tensor = loaded.model(torch.tensor([list(tokens)]), use_cache=False).logits[0]
        handle.remove()
        return logits

    logits, opened = one_pass(steer(*without_gated(*profiles))), one_pass(steer(*without_gates(*profiles)))
    gates = [profile.final_layer.gate for profile in profiles if profile.final_layer.gate is not None]
    top = logits.float().softmax(dim=-1).amax(dim=-1).tolist()
    is_open = [bool(gates) and gates[0].low <= p <= gates[0].high for p in top]
    return torch.stack([(opened if chosen else logits)[at] for at, chosen in enumerate(is_open)]), is_open


def slowly(
    loaded: LoadedModel,
    prompt: Sequence[int],
    profiles: tuple[Profile, ...],
    opened: list[bool],
    guess: Sequence[int] = (),
) -> list[int]:
    """Greedy decoding with two whole passes per token; appends to ``opened`` whether the gate was open.

    A right ``guess`` of the completion takes two passes in all.
    """
    is_open: list[bool] = []

    def likeliest(text: Sequence[int]) -> list[int]:
        logits, is_open[:] = two_passes(loaded, text, profiles)
        return [int(token) for token in logits.argmax(dim=-1)]

    completion = completed(likeliest, prompt, GREEDY.max_tokens, guess)
    opened += is_open[len(prompt) - 1 :][: GREEDY.max_tokens]
    return completion
