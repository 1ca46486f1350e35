"""Settings of fits: methods, the values that they try, and limits. Does not import torch."""

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from steering_profiles.errors import FitError
from steering_profiles.fields import strength_text

Method = Literal["stepwise", "paper", "circuit", "random"]
METHODS: tuple[Method, ...] = get_args(Method)

Kind = Literal["head", "neuron"]
KINDS: tuple[Kind, ...] = get_args(Kind)

Metric = Literal["f1", "recall", "precision"]
METRICS: tuple[Metric, ...] = get_args(Metric)

ACCURACY_THRESHOLD = 0.7
"""Accuracy at which a component promotes the right answer of a sub-task: 0.7 in the paper, 0.9 in its code."""

TOP_K = (0, 5, 10, 20, 30, 40, 50, 60)
ALPHA = (1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8, 1.9, 2.0)

Source = Literal["regression", "mean"]
SOURCES: tuple[Source, ...] = get_args(Source)
"""Sources of the intercept: the regression, or the plain mean of the MLP's output."""

Positions = Literal["all", "last"]
POSITIONS: tuple[Positions, ...] = get_args(Positions)
"""Where the final layer is changed: at all positions, or at the last token of the prompt alone, as the paper does."""

SELF_ONLY_ATTENTION = (0.0, 0.25, 0.5, 0.75, 1.0)
LAMBDA = (-0.5, -0.4, -0.3, -0.2, -0.15, -0.1, -0.05, 0.0, 0.05, 0.1, 0.25)

MARGIN = 1.0
"""Lead of an answer, its logit minus the largest other logit, from which it adds nothing to the stepwise loss."""

_ROUNDING = 1e-9


@dataclass(frozen=True)
class StepwiseSettings:
    """Settings of the stepwise search.

    Raises:
        ValueError: a setting is out of range; the message names it and the allowed values.
    """

    step: float = 0.1
    """Change of a scale in one step, at the start of the search."""
    min_step: float = 0.0125
    """The search ends when its step is smaller than this."""
    components_per_step: int = 3
    """Number of components whose scales are changed in one step."""
    batch_prompts: int = 224
    """Prompts of the fitting batch: train prompts and an equal share of each of the task's other prompt formats."""
    batch_windows: int = 6
    """Windows of other text in the fitting batch."""
    text_weight: float = 5.0
    """Weight of the other text's NLL in the loss, relative to the loss of the answers; both are in nats."""
    margin: float = MARGIN
    """Lead from which an answer adds nothing to the loss. With more, the search goes on where answers are right, until
    they are right by so much."""
    max_steps: int = 40
    validation_prompts: int = 400
    """Prompts of the validation set: dev prompts and an equal share of each of the task's other prompt formats."""
    validation_interval: int = 4
    """Number of steps between two measurements on the validation set."""
    max_components: int = 20
    max_scale: float = 1.5
    """Largest allowed scale. The smallest is ``2 - max_scale``."""
    max_nll_increase: float = 0.01
    """Largest allowed increase of the NLL of other text, as a share of the plain model's."""
    patience: int = 4
    """The search ends after this number of measurements without an error on the validation set."""
    max_lost: float | None = None
    """Largest allowed loss of accuracy, in percentage points, of a group of a choosing format; None: any."""
    conditions: bool = False
    """Whether to try the task's conditions, too."""
    in_turn: bool = False
    """Whether to search under one condition after the other, each beside what the earlier ones chose."""

    def __post_init__(self) -> None:
        for name in (
            "components_per_step",
            "batch_prompts",
            "batch_windows",
            "validation_prompts",
            "max_steps",
            "validation_interval",
            "max_components",
            "patience",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed: whole numbers from 1")
        if not 0 < self.min_step <= self.step < math.inf:
            step, least = strength_text(self.step), strength_text(self.min_step)
            raise ValueError(f"step is {step}; allowed: finite numbers from {least}, above 0")
        if not 1 + self.step <= self.max_scale + _ROUNDING < math.inf:
            most, least = strength_text(self.max_scale), strength_text(1 + self.step)
            raise ValueError(f"max scale is {most}; allowed: finite numbers from {least}")
        if self.in_turn and not self.conditions:
            raise ValueError("in turn is true, but conditions are not to be tried; the search has a turn for each")
        if not 0 < self.margin < math.inf:
            raise ValueError(f"margin is {strength_text(self.margin)}; allowed: finite numbers above 0")
        if self.max_lost is not None and not 0 <= self.max_lost <= 100:
            raise ValueError(f"max lost is {strength_text(self.max_lost)}; allowed: percentage points, 0..100")

    def to_json(self) -> dict[str, int | float]:
        """Return the settings by the keys that the provenance of a profile uses."""
        of_harm = {} if self.max_lost is None else {"most_lost": self.max_lost}
        of_turns = {"in_turn": True} if self.in_turn else {}
        of_margin = {} if self.margin == MARGIN else {"margin": self.margin}
        return (
            of_harm
            | of_turns
            | of_margin
            | {
                "step": self.step,
                "least_step": self.min_step,
                "at_once": self.components_per_step,
                "prompts": self.batch_prompts,
                "windows": self.batch_windows,
                "text_weight": self.text_weight,
                "steps": self.max_steps,
                "watched": self.validation_prompts,
                "measured_every": self.validation_interval,
                "most_components": self.max_components,
                "most_scale": self.max_scale,
                "most_drift": self.max_nll_increase,
                "patience": self.patience,
            }
        )


@dataclass(frozen=True)
class FitSettings:
    """Settings of a fit of component scales.

    Raises:
        ValueError: a setting is out of range; the message names it and the allowed values.
    """

    method: Method = "stepwise"
    """``stepwise`` changes scales in small steps along a gradient. The others give the k best components of an order
    the same scale: of RASteer's ranking (``paper``), of activation patching (``circuit``) or of a ``random`` order."""
    kinds: tuple[Kind, ...] = ("head",)
    metric: Metric = "f1"
    accuracy_threshold: float = ACCURACY_THRESHOLD
    top_k: tuple[int, ...] = TOP_K
    """Numbers of components to try. A number larger than the model's stands for all of them."""
    alphas: tuple[float, ...] = ALPHA
    stepwise: StepwiseSettings = field(default_factory=StepwiseSettings)

    def __post_init__(self) -> None:
        if not self.top_k or not self.alphas:
            raise ValueError("k and alpha each need at least one value")
        for k in self.top_k:
            if k < 0:
                raise ValueError(f"k is {k}; allowed: whole numbers from 0")
        for alpha in self.alphas:
            if not 1 < alpha < math.inf:  # false for NaN too
                raise ValueError(f"alpha is {strength_text(alpha)}; allowed: finite numbers above 1")
        if not 0 < self.accuracy_threshold <= 1:
            raise ValueError(
                f"accuracy threshold is {strength_text(self.accuracy_threshold)}; allowed: above 0, up to 1"
            )
        if not self.kinds or not set(self.kinds) <= set(KINDS):
            raise ValueError(f"components are {', '.join(self.kinds) or 'none'}; allowed: {', '.join(KINDS)}")
        if self.method in ("circuit", "random") and self.kinds != ("head",):
            raise ValueError(f"method {self.method} scales attention heads only; it takes no neurons")


@dataclass(frozen=True)
class FinalLayerSettings:
    """Settings of a fit of the final layer.

    Raises:
        ValueError: a setting is out of range; the message names it and the allowed values.
    """

    self_only_attention: tuple[float, ...] = SELF_ONLY_ATTENTION
    """Shares of the final layer's attention to replace by each position's own value, 0..1."""
    lambdas: tuple[float, ...] = LAMBDA
    """Shares of the intercept to subtract; a negative share is added."""
    sources: tuple[Source, ...] = SOURCES
    positions: tuple[Positions, ...] = POSITIONS
    conditions: bool = False
    """Whether to try the candidates under the task's conditions, too."""
    gates: bool = False
    """Whether to try the candidates behind gates, too."""
    per_group: bool = False
    """Whether each group has settings of its own, at the last token of the prompt (:mod:`.final_layer_groups`)."""
    max_lost: float = 1.0
    """Largest allowed loss of accuracy, in percentage points, of a group of dev and of another prompt format."""
    max_nll_increase: float = 0.01
    """Largest allowed increase of the NLL of other text, as a share of the plain model's."""

    def __post_init__(self) -> None:
        if not self.self_only_attention or not self.lambdas or not self.sources or not self.positions:
            raise ValueError("self-only attention, lambda, intercept and positions each need at least one value")
        for share in self.self_only_attention:
            if not 0 <= share <= 1:  # false for NaN too
                raise ValueError(f"self-only attention is {strength_text(share)}; allowed: numbers in 0..1")
        for scale in self.lambdas:
            if not -10 <= scale <= 10:
                raise ValueError(f"lambda is {strength_text(scale)}; allowed: numbers in -10..10")
        if not 0 <= self.max_lost <= 100:
            raise ValueError(f"max lost is {strength_text(self.max_lost)}; allowed: percentage points, 0..100")
        if not 0 <= self.max_nll_increase < math.inf:
            raise ValueError(
                f"max NLL increase is {strength_text(self.max_nll_increase)}; allowed: finite numbers from 0"
            )
        if not set(self.sources) <= set(SOURCES):
            raise ValueError(f"intercept is {', '.join(self.sources)}; allowed: {', '.join(SOURCES)}")
        if not set(self.positions) <= set(POSITIONS):
            raise ValueError(f"positions are {', '.join(self.positions)}; allowed: {', '.join(POSITIONS)}")


def require_ridge(ridge: float) -> None:
    """Check that ``ridge`` is in range.

    Raises:
        FitError: it is not a finite number of 0 or more.
    """
    if not (math.isfinite(ridge) and ridge >= 0):
        raise FitError(f"ridge is {ridge}; allowed: finite numbers from 0")
