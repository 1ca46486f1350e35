"""Experiments and reports as the API shows them."""

from collections.abc import Sequence

from steering_server.api.schemas.experiment_series import ArmPoint, ComparisonPoint, ExperimentSeries, SeriesPoint
from steering_server.api.schemas.experiments import (
    ArmReport,
    ChangeObject,
    ComparisonReport,
    ExperimentObject,
    ExperimentReport,
    GuardrailObject,
    GuardrailReport,
    OutcomeObject,
    SampleRatioReport,
    WeightedArm,
)
from steering_server.experiments.report import Report
from steering_server.experiments.series import Point
from steering_server.experiments.store import Change, Experiment


def experiment_object(experiment: Experiment, changes: Sequence[Change] | None = None) -> ExperimentObject:
    """Return an experiment, with its changes if they are given."""
    definition = experiment.definition
    outcome = definition.outcome
    return ExperimentObject(
        name=definition.name,
        description=definition.description,
        model=experiment.model,
        state=experiment.state,
        arms=[
            WeightedArm(name=arm.name, steering=arm.steering, weight=experiment.weights[arm.name])
            for arm in definition.arms
        ],
        outcome=OutcomeObject(
            name=outcome.name,
            kind=outcome.kind,
            lower=outcome.lower,
            upper=outcome.upper,
            better="higher" if outcome.higher_is_better else "lower",
            expected=outcome.expected,
        ),
        requests=definition.requests,
        unit=definition.unit,
        guardrails=[GuardrailObject(**vars(guardrail)) for guardrail in definition.guardrails],
        minimum_effect=definition.minimum_effect,
        power=definition.power,
        alpha=definition.alpha,
        store_text=definition.store_text,
        salt=definition.salt,
        planned_units=definition.planned_units,
        created_at=experiment.created_at,
        changes=None
        if changes is None
        else [
            ChangeObject.model_validate(
                {"at": change.at, "by": change.by, "action": change.action, "details": dict(change.details)}
            )
            for change in changes
        ],
    )


def report_object(report: Report) -> ExperimentReport:
    """Return a report."""
    ratio = report.sample_ratio
    return ExperimentReport(
        experiment=experiment_object(report.experiment),
        at=report.at,
        arms=[
            ArmReport(
                name=arm.name,
                steering=arm.steering,
                weight=arm.weight,
                exposures=arm.exposures,
                units=arm.units,
                outcomes=arm.outcomes,
                mean=arm.mean,
                interval=arm.interval,
                latency=arm.builtin["latency"],
                time_to_first_token=arm.builtin["time_to_first_token"],
                errors=arm.builtin["errors"],
                completion_tokens=arm.builtin["completion_tokens"],
            )
            for arm in report.arms
        ],
        comparisons=[
            ComparisonReport(
                treatment=one.treatment,
                control=one.control,
                difference=one.difference,
                interval=one.interval,
                verdict=one.verdict,
                units=one.units,
                units_needed=one.units_needed,
                units_missing=one.units_missing,
            )
            for one in report.comparisons
        ],
        guardrails=[GuardrailReport(**vars(guardrail)) for guardrail in report.guardrails],
        sample_ratio=SampleRatioReport(
            p_value=ratio.p_value,
            mismatch=ratio.is_mismatch,
            expected=dict(ratio.expected),
            observed=dict(ratio.observed),
        ),
        lost_exposures=report.lost_exposures,
        warnings=list(_warnings(report)),
    )


def series_object(experiment: Experiment, points: Sequence[Point]) -> ExperimentSeries:
    """Return what was known of an experiment over time."""
    return ExperimentSeries(
        experiment=experiment.definition.name,
        outcome=experiment.definition.outcome.name,
        points=[
            SeriesPoint(
                at=point.at,
                arms=[ArmPoint(**vars(arm)) for arm in point.arms],
                comparisons=[ComparisonPoint(**vars(one)) for one in point.comparisons],
            )
            for point in points
        ],
    )


def _warnings(report: Report) -> list[str]:
    warnings = []
    if report.sample_ratio.is_mismatch:
        warnings.append(
            "sample ratio mismatch: the arms do not have the numbers of units that the weights say, so the other "
            "figures cannot be trusted"
        )
    if report.lost_exposures:
        warnings.append(f"{report.lost_exposures} exposures were lost because the queue was full")
    without = sum(arm.units - arm.units_with_outcome for arm in report.arms if arm.units > arm.units_with_outcome)
    units = sum(arm.units for arm in report.arms)
    if units and without > units / 2:
        warnings.append(f"{without} of {units} units have no outcome; those that have one may not be like the others")
    return warnings
