"""Experiments and their reports. Unknown fields, which a newer server may add, are ignored."""

from collections.abc import Mapping
from typing import Any, Literal

from steering_client.types import Answer

State = Literal["draft", "running", "stopped", "archived"]


class WeightedArm(Answer):
    """An arm of an experiment."""

    name: str
    steering: str
    """What it applies: ``baseline``, or profiles and their strength."""
    weight: float
    """Share of the units that it gets."""


class Outcome(Answer):
    """The primary outcome."""

    name: str
    kind: Literal["rate", "mean"]
    lower: float
    upper: float
    better: Literal["higher", "lower"]
    expected: float | None = None


class Guardrail(Answer):
    """A limit on by how much a metric may be worse than in the control."""

    metric: str
    max_increase: float | None = None
    max_relative_increase: float | None = None
    lower: float | None = None
    upper: float | None = None


class ExperimentChange(Answer):
    """One change of an experiment."""

    at: float
    """Unix time."""
    by: str | None
    """Name of the API key; None on a server without keys."""
    action: str
    details: Mapping[str, Any]


class Experiment(Answer):
    """An experiment."""

    name: str
    description: str
    model: str
    state: State
    arms: tuple[WeightedArm, ...]
    """The first one is the control."""
    outcome: Outcome
    requests: Literal["all", "named"]
    unit: str
    guardrails: tuple[Guardrail, ...]
    minimum_effect: float
    power: float
    alpha: float
    store_text: bool
    salt: str
    planned_units: int
    """Units of a treatment and the control together that the least effect needs."""
    created_at: float
    changes: tuple[ExperimentChange, ...] | None = None
    """None in a list."""


class ExperimentList(Answer):
    """The experiments of a server."""

    data: tuple[Experiment, ...]


class OutcomesStored(Answer):
    """What became of outcomes that were sent."""

    stored: int
    repeated: int
    """Those that had been stored before."""


class ArmReport(Answer):
    """What is known of one arm."""

    name: str
    steering: str
    weight: float
    exposures: int
    units: int
    outcomes: int
    mean: float | None
    """Rate or mean of the primary outcome."""
    interval: tuple[float, float]
    """Always-valid interval of the mean."""
    latency: float | None
    """Mean seconds of an answer."""
    time_to_first_token: float | None
    errors: float | None
    """Share of failed requests."""
    completion_tokens: float | None
    """Mean tokens of an answer."""


class ComparisonReport(Answer):
    """The primary outcome in one arm minus that in the control."""

    treatment: str
    control: str
    difference: float | None
    interval: tuple[float, float] | None
    """Always-valid interval of the difference; None before both arms have enough units."""
    verdict: Literal["better", "worse", "undecided"]
    units: int
    """Units with an outcome in the two arms."""
    units_needed: int
    units_missing: int


class GuardrailReport(Answer):
    """By how much a metric is worse in one arm than in the control."""

    metric: str
    treatment: str
    control: str
    treatment_mean: float | None
    control_mean: float | None
    increase: float | None
    interval: tuple[float, float] | None
    limit: float
    """What the interval is compared with."""
    status: Literal["kept", "violated", "undecided"]


class SampleRatio(Answer):
    """Whether the arms have the numbers of units that the weights say."""

    p_value: float
    mismatch: bool
    expected: Mapping[str, float]
    observed: Mapping[str, int]


class ArmPoint(Answer):
    """What was known of the primary outcome in one arm."""

    name: str
    units: int
    """Units with an outcome."""
    mean: float | None
    interval: tuple[float, float]


class ComparisonPoint(Answer):
    """What was known of the difference from the control."""

    treatment: str
    control: str
    difference: float | None
    interval: tuple[float, float] | None


class SeriesPoint(Answer):
    """What was known at one time."""

    at: float
    arms: tuple[ArmPoint, ...]
    comparisons: tuple[ComparisonPoint, ...]


class ExperimentSeries(Answer):
    """The primary outcome of an experiment over time."""

    experiment: str
    outcome: str
    points: tuple[SeriesPoint, ...]


class ExperimentReport(Answer):
    """The report of an experiment."""

    experiment: Experiment
    at: float
    arms: tuple[ArmReport, ...]
    comparisons: tuple[ComparisonReport, ...]
    guardrails: tuple[GuardrailReport, ...]
    sample_ratio: SampleRatio
    lost_exposures: int
    warnings: tuple[str, ...] = ()
