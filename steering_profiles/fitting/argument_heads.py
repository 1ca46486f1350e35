"""Which heads bring the topic of a question to where it is answered: Lv et al. (arXiv:2403.19521), argument passing.

"The capital of France is": some heads of middle and late layers attend to France and move it to the last position. They
are found by activation patching between prompts of one template with different topics: a head's output at the last
position, taken from the run that asks for Italy, put into the run that asks for France. The more P(Paris) falls, the
more of the topic that head had brought.
"""

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from steering_profiles.errors import TaskError
from steering_profiles.evaluation import TokenPredictor
from steering_profiles.fitting.components import Component
from steering_profiles.fitting.patching import patch_heads
from steering_profiles.models import LoadedModel
from steering_profiles.models.attention import attention_weights
from steering_profiles.progress import Progress, Silent
from steering_profiles.tasks.batches import equal_length_batches
from steering_profiles.tasks.task import Example, Pair

MOST_PAIRS = 40
FEWEST_RIGHT = 8
"""Pairs answered right, from which only those count: of fewer a mean would say little."""


@dataclass(frozen=True)
class ArgumentHead:
    """One head, and how much of the topic it brings to the last position."""

    component: Component
    effect: float
    """The relative fall of P(answer) with the head's output taken from a prompt of another topic, mean over pairs."""
    attention: float
    """How much of its attention goes from the last position to the topic's tokens, 0..1, mean over prompts."""


@dataclass(frozen=True)
class ArgumentHeads:
    """Every head of a model, that whose patch lowers P(answer) most first, and the prompts that this was found on."""

    heads: tuple[ArgumentHead, ...]
    pairs: int
    """How many pairs of prompts the means are over."""
    only_correct: bool
    """Whether those are pairs whose clean prompt the model answers right; if not, too few were, and all were taken."""


def find_argument_heads(
    loaded: LoadedModel,
    examples: Sequence[Example],
    *,
    seed: int = 0,
    most_pairs: int = MOST_PAIRS,
    progress: Progress | None = None,
) -> ArgumentHeads:
    """Rank all heads of the model by what they bring of the topics of ``examples``.

    Pairs are those of :func:`topic_pairs`. Those count whose clean prompt the model answers right, ``most_pairs`` of
    them at most; where fewer than ``FEWEST_RIGHT`` are, all count.

    Raises:
        TaskError: no two examples differ in their topic alone.
        ModelError: the model does not give out its attention weights.
    """
    pairs = topic_pairs(examples, seed)
    if not pairs:
        raise TaskError(
            f"none of {len(examples)} prompts has a known topic and a twin of the same template and as many tokens "
            "that asks for another answer, so no head can be patched"
        )
    correct = _answered_correctly(loaded, pairs, most_pairs, progress or Silent())
    only_correct = len(correct) >= min(FEWEST_RIGHT, most_pairs)
    pairs = correct if only_correct else pairs[:most_pairs]
    effects = patch_heads(loaded, pairs, progress).fall.mean(dim=-1)
    attention = _attention_to_topic(loaded, [pair.clean for pair in pairs])
    sizes = loaded.anatomy.sizes
    found = [
        ArgumentHead(Component("head", layer, head), float(effects[layer, head]), float(attention[layer, head]))
        for layer in range(sizes.layers)
        for head in range(sizes.heads)
    ]
    return ArgumentHeads(tuple(sorted(found, key=lambda head: -head.effect)), len(pairs), only_correct)


def topic_pairs(examples: Sequence[Example], seed: int = 0) -> list[Pair]:
    """Pair examples that differ in their topic alone: same group, template and number of tokens, another answer.

    Each example whose topic and template are known is the clean one of at most one pair; its counterfactual is drawn.
    The order is drawn too.
    """
    alike: dict[tuple[str, str, int], list[Example]] = defaultdict(list)
    for example in examples:
        if example.template and example.topic is not None:
            alike[example.group, example.template, len(example.prompt)].append(example)
    draw = random.Random(f"topics {seed}")
    pairs = []
    for twins in alike.values():
        for clean in twins:
            others = [twin for twin in twins if twin.answer != clean.answer]
            if others:
                pairs.append(Pair(clean, draw.choice(others)))
    draw.shuffle(pairs)
    return pairs


def _answered_correctly(loaded: LoadedModel, pairs: Sequence[Pair], most: int, progress: Progress) -> list[Pair]:
    """Return the first ``most`` pairs whose clean prompt is answered right."""
    progress.stage("asking the plain model", len(pairs))
    right: list[Pair] = []
    with TokenPredictor(loaded) as predictor:
        for start in range(0, len(pairs), most):
            some = pairs[start : start + most]
            predicted = predictor.predict([pair.clean for pair in some], progress=progress)
            right += [pair for pair, token in zip(some, predicted, strict=True) if token == pair.clean.answer]
            if len(right) >= most:
                break
    return right[:most]


@torch.inference_mode()
def _attention_to_topic(loaded: LoadedModel, examples: Sequence[Example]) -> Tensor:
    """Return the mean attention from the last position to the topic's tokens: ``[layers, heads]``."""
    sizes = loaded.anatomy.sizes
    total = torch.zeros(sizes.layers, sizes.heads, dtype=torch.double)
    for indices in equal_length_batches(examples):
        batch = [examples[index] for index in indices]
        tokens = torch.tensor([example.prompt for example in batch], device=loaded.input_device)
        of_topic = torch.zeros(tokens.shape, dtype=torch.double)
        for row, example in enumerate(batch):
            if example.topic is not None:
                of_topic[row, slice(*example.topic)] = 1

        def take(layer: int, weights: Tensor, of_topic: Tensor = of_topic) -> None:
            total[layer] += torch.einsum("nht,nt->h", weights[:, :, -1].double().cpu(), of_topic)

        with attention_weights(loaded, range(sizes.layers), take):
            loaded.model(input_ids=tokens, use_cache=False, logits_to_keep=1)
    return total / len(examples)
