"""Find argument-passing heads, which move the topic of a question to the last position: Lv et al. (arXiv:2403.19521).

In "The capital of France is" some heads of middle and late layers attend to France and write it to the last position.
They are found by activation patching between prompts of the same template with different topics: a head's output at
the last position in the run on France is replaced by its output in the run on Italy. The more P(Paris) falls, the more
of the topic the head passes on.
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
"""Maximum number of pairs that are patched."""
FEWEST_CORRECT = 8
"""Minimum number of pairs with a correct clean answer. With fewer, all pairs are used, for a more reliable mean."""


@dataclass(frozen=True)
class ArgumentHead:
    """An attention head and its effect as an argument-passing head."""

    component: Component
    effect: float
    """Relative fall of P(answer) when the head's output is taken from a prompt on another topic, mean over pairs."""
    attention: float
    """Attention weight from the last position to the topic's tokens, 0..1, mean over prompts."""


@dataclass(frozen=True)
class ArgumentHeads:
    """All heads of a model in descending order of their effect, and a description of the prompts used."""

    heads: tuple[ArgumentHead, ...]
    pairs: int
    """Number of pairs that the means are over."""
    only_correct: bool
    """Whether only pairs with a correctly answered clean prompt were used; False if there were too few of them."""


def find_argument_heads(
    loaded: LoadedModel,
    examples: Sequence[Example],
    *,
    seed: int = 0,
    most_pairs: int = MOST_PAIRS,
    progress: Progress | None = None,
) -> ArgumentHeads:
    """Rank all heads of the model by their effect as argument-passing heads on ``examples``.

    The pairs are those of :func:`topic_pairs` whose clean prompt the model answers correctly, at most ``most_pairs``.
    If there are fewer than ``FEWEST_CORRECT``, the first ``most_pairs`` of all pairs are used.

    Raises:
        TaskError: no two examples differ in their topic only.
        ModelError: the model does not return its attention weights.
    """
    pairs = topic_pairs(examples, seed)
    if not pairs:
        raise TaskError(
            f"none of {len(examples)} prompts has a known topic and a counterpart with the same template, the same "
            "number of tokens and another answer, so no head can be patched"
        )
    correct = _answered_correctly(loaded, pairs, most_pairs, progress or Silent())
    only_correct = len(correct) >= min(FEWEST_CORRECT, most_pairs)
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
    """Return pairs of examples with the same group, template and number of tokens, and different answers.

    Each example with a known topic and template is the clean prompt of at most one pair. The counterfactual prompts and
    the order of the pairs are random.
    """
    alike: dict[tuple[str, str, int], list[Example]] = defaultdict(list)
    for example in examples:
        if example.template and example.topic is not None:
            alike[example.group, example.template, len(example.prompt)].append(example)
    draw = random.Random(f"topics {seed}")
    pairs = []
    for alike_examples in alike.values():
        for clean in alike_examples:
            others = [other for other in alike_examples if other.answer != clean.answer]
            if others:
                pairs.append(Pair(clean, draw.choice(others)))
    draw.shuffle(pairs)
    return pairs


def _answered_correctly(loaded: LoadedModel, pairs: Sequence[Pair], most: int, progress: Progress) -> list[Pair]:
    """Return the first ``most`` pairs whose clean prompt is answered correctly."""
    progress.stage("running the plain model", len(pairs))
    correct: list[Pair] = []
    with TokenPredictor(loaded) as predictor:
        for start in range(0, len(pairs), most):
            some = pairs[start : start + most]
            predicted = predictor.predict([pair.clean for pair in some], progress=progress)
            correct += [pair for pair, token in zip(some, predicted, strict=True) if token == pair.clean.answer]
            if len(correct) >= most:
                break
    return correct[:most]


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
