"""The slow, obvious way to scale heads at some positions only, for conditions written a second time in plain Python."""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from steering_profiles.models import LoadedModel
from tests.builders import completed

Scales = Sequence[tuple[int, int, float]]


@dataclass(frozen=True)
class Where:
    """A condition, and the same in Python: of the text so far, the position and the length of the prompt."""

    when: Mapping[str, object]
    holds: Callable[[str, int, int], bool]


# Bytes outside of characters, which random weights generate and U+FFFD stands for here, match nothing.
CONDITIONS = {
    "ends with": Where({"ends_with": ["(", "ab"]}, lambda text, *_: text.endswith(("(", "ab"))),
    "matches": Where(
        {"matches": r"\w+\([^()]*"}, lambda text, *_: re.search(r"[a-z0-9]+\([^()\ufffd]*\Z", text) is not None
    ),
    "from": Where({"from_position": 7}, lambda text, at, _: at >= 7),
    "prompt": Where({"part": "prompt"}, lambda text, at, length: at < length - 1),
    "completion": Where({"part": "completion"}, lambda text, at, length: at >= length - 1),
    "last prompt token": Where({"part": "last_prompt_token"}, lambda text, at, length: at == length - 1),
    "joined": Where(
        {"all": [{"not": {"ends_with": ["("]}}, {"any": [{"from_position": 4}, {"matches": "[a-k]{2}"}]}]},
        lambda text, at, _: text[-1] != "(" and (at >= 4 or re.search(r"[a-k]{2}\Z", text) is not None),
    ),
}


def positions(loaded: LoadedModel, where: Where, tokens: Sequence[int], prompt_length: int) -> list[bool]:
    """Where the condition holds, by decoding the whole text so far at every position."""
    texts = [loaded.tokenizer.decode(tokens[: at + 1], clean_up_tokenization_spaces=False) for at in range(len(tokens))]
    return [where.holds(text, at, prompt_length) for at, text in enumerate(texts)]


@torch.no_grad()
def logits_where(loaded: LoadedModel, tokens: Sequence[int], *scaled: tuple[Scales, Sequence[bool]]) -> Tensor:
    """The stock model's logits, ``[tokens, vocab]``, with heads scaled at the positions that are given for them."""
    size = loaded.anatomy.sizes.head_dim

    def scale(module: nn.Module, args: tuple[Tensor, ...], layer: int) -> tuple[Tensor, ...]:
        z = args[0].clone()
        for scales, holds in scaled:
            for at_layer, head, factor in scales:
                if at_layer == layer:
                    z[:, torch.tensor(holds), head * size : (head + 1) * size] *= factor
        return (z, *args[1:])

    with ExitStack() as hooks:
        for index, layer in enumerate(loaded.anatomy.layers):
            hooks.callback(layer.head_output.register_forward_pre_hook(partial(scale, layer=index)).remove)
        logits: Tensor = loaded.model(torch.tensor([list(tokens)]), use_cache=False).logits[0]
        return logits


def greedy_where(
    loaded: LoadedModel, prompt: Sequence[int], *scaled: tuple[Scales, Where], tokens: int, guess: Sequence[int] = ()
) -> list[int]:
    """Greedy decoding with the whole text again for every token."""

    def likeliest(text: Sequence[int]) -> list[int]:
        at = [(scales, positions(loaded, where, text, len(prompt))) for scales, where in scaled]
        return [int(token) for token in logits_where(loaded, text, *at).argmax(dim=-1)]

    return completed(likeliest, prompt, tokens, guess)
