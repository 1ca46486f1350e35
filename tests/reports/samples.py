"""Sample reports: one with all sections, and untrusted text."""

from typing import Any

import numpy as np

from steering_profiles.evaluation import Accuracy
from steering_profiles.evaluation.side_effects import SideEffects, TextEffect
from steering_profiles.fitting.components import Component
from steering_profiles.fitting.grid import GridPoint, MeasuredPoint
from steering_profiles.reports import (
    HeadAttention,
    MethodResult,
    RankedComponent,
    Report,
    ReportedRanking,
    ReportedStep,
)
from steering_profiles.schema import HeadScale, ModelIdentity, NeuronScale, Profile, Provenance

HOSTILE = "<script>alert(1)</script> & \"a\" 'b' | `c` \\| **d** [e](f) $g$ \u202e\x1b[31m"
"""Text with a script, an entity, quotes, a table's bar, a code span, a link, a formula and control characters."""

MODEL = ModelIdentity(
    id="some-model", architecture="LlamaForCausalLM", layers=4, heads=3, kv_heads=3, head_dim=2, neurons=8,
    hidden_size=6, vocab_size=50, fingerprint="sha256:0",
)  # fmt: skip
GROUPS = (")", "))", ")))")
HEADS = (HeadScale(layer=1, head=2, scale=1.5), HeadScale(layer=3, head=0, scale=0.25))
NEURONS = (NeuronScale(layer=2, neuron=7, scale=1.75),)
POINTS: list[Any] = [[0, 1.0, 61, 90], [1, 1.5, 70, 90], [1, 2.0, 20, 45], [2, 1.5, 88, 90], [2, 2.0, 31, 45]]


def accuracy(*correct: int, of: int = 50, groups: tuple[str, ...] = GROUPS) -> Accuracy:
    return Accuracy({group: (count, of) for group, count in zip(groups, correct, strict=True)})


def profile(**changes: Any) -> Profile:
    content: dict[str, Any] = {
        "name": "sample",
        "description": "Scales two heads and a neuron.",
        "method": "rasteer",
        "model": MODEL,
        "heads": HEADS,
        "neurons": NEURONS,
        "provenance": Provenance(
            tool_version="9.8.7",
            command="steer fit sample --out there",
            task="sample-task",
            seed=41,
            split_sizes={"train": 350, "dev": 151, "test": 152},
            grid={"metric": "f1", "points": POINTS * 9},
            chosen={"k": 2, "alpha": 1.5},
            dev={"after": {")": 97.3}},
            test={"before": {")": 12.3}, "after": {")": 45.6}},
            side_effects={"prose": {"tokens": 1234}},
        ),
    }
    return Profile(**content | changes)


def ranking(groups: tuple[str, ...] = GROUPS, count: int = 12) -> ReportedRanking:
    draw = np.random.default_rng(0)
    scales = {(h.layer, h.head): h.scale for h in HEADS}

    def ranked(index: int) -> RankedComponent:
        accuracy = tuple(draw.random(len(groups)).tolist())
        precision, recall, f1 = draw.random(3).tolist()
        place = divmod(index, 3)
        return RankedComponent(Component("head", *place), accuracy, precision, recall, f1, scales.get(place))

    return ReportedRanking(groups, tuple(map(ranked, range(count))))


def attention(tokens: tuple[str, ...] = ("#", " print", "\n", "$x$")) -> HeadAttention:
    weights = np.tril(np.random.default_rng(1).random((len(tokens), len(tokens))) + 0.01)
    return HeadAttention(Component("head", 3, 0), tokens, (weights / weights.sum(1, keepdims=True)).astype(np.float32))


def whole(**changes: Any) -> Report:
    """A report of a fit of components with data for every section."""
    content: dict[str, Any] = {
        "profile": profile(),
        "command": "steer evaluate sample --report there",
        "accuracy": {
            "test": (accuracy(50, 33, 1), accuracy(50, 49, 47)),
            "5 digits": (accuracy(50, 50, 50), accuracy(49, 50, 50)),
            "other": (accuracy(3, of=20, groups=(")",)), accuracy(17, of=20, groups=(")",))),
        },
        "side_effects": SideEffects(
            (
                TextEffect("prose", 1234, 3.1234, 3.1301, 0.987),
                TextEffect(
                    *("code", 2345, 2.1, 2.4321, 0.876),
                    correct=(0.6, 0.585),
                    correct_interval=(-0.02, -0.01),
                    divergence=0.042,
                    divergence_interval=(0.04, 0.044),
                ),
            )
        ),
        "ranking": ranking(),
        "grid": tuple(MeasuredPoint(GridPoint(k, alpha), Accuracy({"all": (r, n)})) for k, alpha, r, n in POINTS),
        "path": (
            ReportedStep(0, 0, 0.0, 29, 90, 0.0),
            ReportedStep(1, 1, 0.5, 11, 90, 0.0021),
            ReportedStep(2, 2, 1.25, 2, 90, 0.0043, chosen=True),
        ),
        "validation_set": {"dev": 60, "5 digits": 30},
        "comparison": (
            MethodResult("stepwise", 2, "1.5", accuracy(50, 49, 47), accuracy(49, 50, 50), 0.0043),
            MethodResult("random", 2, "1.5", accuracy(49, 20, 0), None, None),
        ),
        "attention": (attention(),),
    }
    return Report(**content | changes)
