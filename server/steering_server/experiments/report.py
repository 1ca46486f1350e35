"""The report of an experiment: arms, differences from the control, and whether the figures can be trusted."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from steering_ab.statistics.sample_ratio import Period, sample_ratio
from steering_ab.statistics.sequential import (
    Interval,
    Sample,
    pooled_difference,
    units_needed,
)
from steering_server.experiments.aggregates import Aggregates, read_aggregates
from steering_server.experiments.comparing import difference_interval, mean_interval, strata, whole
from steering_server.experiments.database import Database
from steering_server.experiments.definition import BUILTIN, Definition, Guardrail
from steering_server.experiments.store import Experiment

Verdict = Literal["better", "worse", "undecided"]
Status = Literal["kept", "violated", "undecided"]


@dataclass(frozen=True)
class ArmFigures:
    """What is known of one arm."""

    name: str
    steering: str
    weight: float
    exposures: int
    units: int
    outcomes: int
    """Outcomes of the primary metric."""
    units_with_outcome: int
    mean: float | None
    """Rate or mean of the primary outcome; None without outcomes."""
    interval: Interval
    builtin: Mapping[str, float | None]
    """Means of what the server measures: seconds, seconds, share of failures, tokens."""


@dataclass(frozen=True)
class Comparison:
    """The primary outcome in one arm minus that in the control."""

    treatment: str
    control: str
    difference: float | None
    interval: Interval | None
    """None before there are enough units."""
    verdict: Verdict
    units: int
    """Units with an outcome in the two arms."""
    units_needed: int
    """Units that the least effect needs, by what is known of the outcome's variance."""

    @property
    def units_missing(self) -> int:
        """Units that are still needed."""
        return max(0, self.units_needed - self.units)


@dataclass(frozen=True)
class GuardrailFigures:
    """By how much a metric is worse in one arm than in the control, and whether the limit holds."""

    metric: str
    treatment: str
    control: str
    treatment_mean: float | None
    control_mean: float | None
    increase: float | None
    """Difference of the means, or, for a relative limit, that of the treatment and the limit."""
    interval: Interval | None
    limit: float
    """What the interval is compared with: the limit, or 0 for a relative one."""
    status: Status


@dataclass(frozen=True)
class SampleRatioFigures:
    """Whether units are divided by the weights."""

    p_value: float
    is_mismatch: bool
    expected: Mapping[str, float]
    """Units of each arm that the weights of all periods let expect."""
    observed: Mapping[str, int]


@dataclass(frozen=True)
class Report:
    """Everything that is known of an experiment at one time."""

    experiment: Experiment
    at: float
    arms: Sequence[ArmFigures]
    comparisons: Sequence[Comparison]
    guardrails: Sequence[GuardrailFigures]
    sample_ratio: SampleRatioFigures
    lost_exposures: int
    planned_units: int
    """Units of a treatment and the control together that were planned for the least effect."""


def make_report(database: Database, experiment: Experiment, periods: Mapping[int, Mapping[str, float]]) -> Report:
    """Read what is stored of an experiment and compare its arms.

    Raises:
        Unavailable: the database cannot be reached.
    """
    with database.reading() as connection:
        aggregates = read_aggregates(connection, experiment.id, tuple(experiment.definition.own_metrics))
    return report_of(experiment, periods, aggregates)


def report_of(experiment: Experiment, periods: Mapping[int, Mapping[str, float]], aggregates: Aggregates) -> Report:
    """Compare the arms of an experiment by sums over what is stored."""
    definition = experiment.definition
    arms = range(len(definition.arms))
    return Report(
        experiment=experiment,
        at=time.time(),
        arms=[_arm(experiment, aggregates, index) for index in arms],
        comparisons=[_comparison(experiment, aggregates, index) for index in arms[1:]],
        guardrails=[
            _guardrail(definition, aggregates, guardrail, index)
            for guardrail in definition.guardrails
            for index in arms[1:]
        ],
        sample_ratio=_sample_ratio(definition, periods, aggregates),
        lost_exposures=aggregates.lost,
        planned_units=definition.planned_units,
    )


def _arm(experiment: Experiment, aggregates: Aggregates, index: int) -> ArmFigures:
    definition, name = experiment.definition, experiment.definition.arm_names[index]
    cells = aggregates.cells(definition.outcome.name)
    sums = whole(cells, index)
    return ArmFigures(
        name=name,
        steering=definition.arms[index].steering,
        weight=experiment.weights[name],
        exposures=aggregates.exposures.get(index, 0),
        units=aggregates.units.get(index, 0),
        outcomes=sums.observations,
        units_with_outcome=sums.units,
        mean=sums.mean,
        interval=mean_interval(definition, cells, index),
        builtin={metric: whole(aggregates.cells(metric), index).mean for metric in BUILTIN},
    )


def _comparison(experiment: Experiment, aggregates: Aggregates, index: int) -> Comparison:
    definition = experiment.definition
    outcome, cells = definition.outcome, aggregates.cells(definition.outcome.name)
    difference, known = difference_interval(definition, cells, index) or (None, None)
    sign = 1 if outcome.higher_is_better else -1
    verdict: Verdict = "undecided"
    if known is not None and not known[0] <= 0 <= known[1]:
        verdict = "better" if sign * known[0] > 0 else "worse"
    treatment, control = whole(cells, index), whole(cells, 0)
    return Comparison(
        treatment=definition.arm_names[index],
        control=definition.arm_names[0],
        difference=difference,
        interval=known,
        verdict=verdict,
        units=treatment.units + control.units,
        units_needed=_needed(experiment, index, treatment.sample, control.sample),
    )


def _needed(experiment: Experiment, index: int, treatment: Sample, control: Sample) -> int:
    """Return the units that the least effect needs, with the variances seen so far, where enough has been seen."""
    definition, names = experiment.definition, experiment.definition.arm_names
    shares = (experiment.weights[names[index]], experiment.weights[names[0]])
    if min(shares) <= 0:
        shares = (0.5, 0.5)  # an arm gets no units at the moment
    least = 100
    if min(treatment.units, control.units) < least:
        mean = definition.outcome.expected
        bounds = definition.outcome.bounds
        middle = (bounds.lower + bounds.upper) / 2 if mean is None else mean
        treatment = control = Sample(0, middle, (middle - bounds.lower) * (bounds.upper - middle))
    return units_needed(
        definition.minimum_effect,
        (treatment, control),
        definition.outcome.bounds,
        shares=shares,
        power=definition.power,
        alpha=definition.alpha_of_one,
        design=definition.design,
    )


def _guardrail(definition: Definition, aggregates: Aggregates, guardrail: Guardrail, index: int) -> GuardrailFigures:
    cells = aggregates.cells(guardrail.metric)
    relative = guardrail.max_relative_increase
    factor, limit = (1 + relative, 0.0) if relative is not None else (1.0, guardrail.max_increase or 0.0)
    increase, interval = pooled_difference(strata(cells, index), definition.design, guardrail.bounds, factor=factor)
    status: Status = "undecided"
    if increase is not None:
        status = "violated" if interval[0] > limit else "kept" if interval[1] <= limit else "undecided"
    return GuardrailFigures(
        metric=guardrail.metric,
        treatment=definition.arm_names[index],
        control=definition.arm_names[0],
        treatment_mean=whole(cells, index).mean,
        control_mean=whole(cells, 0).mean,
        increase=increase,
        interval=None if increase is None else interval,
        limit=limit,
        status=status,
    )


def _sample_ratio(
    definition: Definition, periods: Mapping[int, Mapping[str, float]], aggregates: Aggregates
) -> SampleRatioFigures:
    names = definition.arm_names
    seen: list[Period] = []
    expected, observed = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0)
    for number, weights in periods.items():
        units = tuple(aggregates.first_units.get((number, index), 0) for index in range(len(names)))
        seen.append(Period(units, tuple(weights[name] for name in names)))
        for name, count in zip(names, units, strict=True):
            expected[name] += weights[name] * sum(units)
            observed[name] += count
    found = sample_ratio(seen)
    return SampleRatioFigures(found.p_value, found.is_mismatch, expected, observed)
