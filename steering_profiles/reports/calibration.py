"""The parts of a report on calibration and on the search over final-layer settings."""

from collections.abc import Iterator, Sequence

from steering_profiles.evaluation.calibration import Calibration, CalibrationComparison
from steering_profiles.fitting.final_layer_candidates import PLAIN, MeasuredCandidate
from steering_profiles.reports.report import FinalLayerSearch
from steering_profiles.reports.tables import ALL, Cell, Column, Table, Tone
from steering_profiles.reports.text import minus, number, percent, signed_percent

_POINT = 0.005
"""Minimum change of a probability that counts as a change."""


def calibration_table(name: str, compared: CalibrationComparison) -> Table:
    """Return the calibration of each arm: on all prompts, per group, and by whether the baseline answers correctly."""
    baseline = compared.baseline
    groups = list(baseline.all_prompts.groups) if len(baseline.all_prompts.groups) > 1 else []
    rows = _rows(ALL, [arm.all_prompts.pooled for arm in compared.arms], compared.temperature)
    for group in groups:
        rows += _rows(group, [arm.all_prompts.groups[group] for arm in compared.arms], compared.temperature)
    for title, parts in (
        ("baseline correct", [arm.baseline_correct.pooled for arm in compared.arms]),
        ("baseline wrong", [arm.baseline_wrong.pooled for arm in compared.arms]),
    ):
        rows += _rows(title, parts, compared.temperature)
    return Table(
        f"Calibration on {name}: accuracy and expected calibration error (ECE) in percent, NLL of the correct answer "
        "in nats (in brackets: 95% confidence interval)",
        (
            Column("subset", numeric=False),
            Column("prompts"),
            Column("arm", numeric=False),
            Column("accuracy"),
            Column("P(correct)"),
            Column("NLL"),
            Column("ECE"),
            Column("confidence"),
        ),
        tuple(rows),
    )


def verdict(compared: CalibrationComparison) -> Iterator[tuple[str, Tone]]:
    """Yield sentences on the comparison; they warn if a temperature does as well or the gain is only sharpening."""
    baseline, profile, tempered = (arm.all_prompts.pooled for arm in compared.arms)
    yield (
        f"Mean P(correct) is {_p(baseline)} without the profile, {_p(profile)} with it and {_p(tempered)} with "
        f"temperature {number(compared.temperature)} alone. The NLL is {baseline.nll:.3f}, {profile.nll:.3f} and "
        f"{tempered.nll:.3f}.",
        "",
    )
    if profile.nll >= tempered.nll:
        yield "By NLL, the temperature alone does as well as the profile, or better.", "worse"
    else:
        yield "By NLL, the profile is better than the temperature alone.", "better"
    if profile.nll > baseline.nll:
        yield "By NLL, the profile is worse than the unsteered model.", "worse"
    correct, wrong, confidence = _changes(compared)
    yield (
        f"On prompts that the unsteered model answers correctly, P(correct) changes by {_signed(correct)}. On those "
        f"that it answers wrongly, P(correct) changes by {_signed(wrong)} and confidence by {_signed(confidence)}.",
        "",
    )
    if sharpens_only(compared):
        yield "The gain is only sharpening: wrong answers gain as much confidence as correct ones.", "worse"


def sharpens_only(compared: CalibrationComparison) -> bool:
    """Return whether the profile only makes distributions sharper.

    This is the case if P(correct) increases on prompts that the baseline answers correctly, confidence increases at
    least as much on those that it answers wrongly, and the number of correct answers does not increase.
    """
    correct, _, confidence = _changes(compared)
    more_correct = compared.profile.all_prompts.pooled.correct > compared.baseline.all_prompts.pooled.correct
    return correct > _POINT and confidence >= correct and not more_correct


def search_sentences(search: FinalLayerSearch) -> Iterator[tuple[str, Tone]]:
    """Yield sentences on the chosen final-layer settings and on the effect of the limits."""
    chosen, unlimited = search.chosen, search.without_nll_limit
    if chosen.candidate == PLAIN:
        yield (
            f"No allowed setting is better on dev than a tuned temperature ({number(chosen.dev.temperature)}), so the "
            "profile changes nothing.",
            "worse",
        )
    else:
        yield f"Chosen on dev: {_outcome(chosen)}.", ""
    if unlimited.candidate != chosen.candidate:
        gates = " and without gates" if chosen.candidate.gate is not None else ""
        yield f"Without the limit on the NLL of other text{gates}, the choice would be {_outcome(unlimited)}.", ""
    if search.rejected is not None:
        best = search.rejected.measured
        yield f"The best setting on dev, {_outcome(best)}, is not allowed: {'; '.join(search.rejected.reasons)}.", ""


def final_layer_table(grid: Sequence[MeasuredCandidate]) -> Table:
    """Return the settings of a search over the final layer, the best on dev first."""
    formats = list(dict.fromkeys(name for m in grid if m.other for name in m.other.fit_formats))
    has_conditions = any(m.candidate.condition for m in grid)
    rows = []
    for m in sorted(grid, key=lambda m: (m.dev.tempered_nll, m.candidate.total_change)):
        there = m.other
        besides = (
            [signed_percent(there.nll_increase), *(f"{there.fit_formats[name].tempered_nll:.4f}" for name in formats)]
            if there
            else []
        )
        rows.append(
            (
                Cell(number(m.candidate.self_only_attention)),
                Cell(number(m.candidate.intercept_scale)),
                Cell(m.candidate.source or "–"),
                Cell("–" if m.candidate.gate is None else str(m.candidate.gate)),
                Cell("–" if m.candidate == PLAIN else m.candidate.positions),
                *([Cell("–" if m.candidate.condition is None else str(m.candidate.condition))] * has_conditions),
                Cell(number(m.dev.temperature)),
                Cell(f"{m.dev.tempered_nll:.4f}"),
                Cell(f"{m.dev.nll:.4f}"),
                Cell(f"{m.dev.probability:.3f}"),
                Cell(percent(m.dev.accuracy.correct / m.dev.accuracy.total)),
                *map(Cell, besides or ["–"] * (1 + len(formats))),
            )
        )
    columns = (
        Column("self-only attention"),
        Column("lambda"),
        Column("intercept", numeric=False),
        Column("gate"),
        Column("positions", numeric=False),
        *([Column("condition", numeric=False)] * has_conditions),
        Column("temperature"),
        Column("dev NLL at it"),
        Column("dev NLL at 1"),
        Column("P(correct)"),
        Column("accuracy, %"),
        Column("NLL increase of other text"),
        *(Column(f"NLL, {name}") for name in formats),
    )
    caption = (
        "Settings of the search, the best on dev first, where each has the temperature that dev prefers; NLL of "
        "formats at theirs. Settings worse on dev than the unsteered model were not measured further"
    )
    return Table(caption, columns, tuple(rows))


def _outcome(measured: MeasuredCandidate) -> str:
    nll_increase = "" if measured.other is None else f", NLL increase {signed_percent(measured.other.nll_increase)}"
    return (
        f"{measured.candidate} (NLL {measured.dev.tempered_nll:.4f} at temperature {number(measured.dev.temperature)}, "
        f"P(correct) {measured.dev.probability:.3f}{nll_increase})"
    )


def _changes(compared: CalibrationComparison) -> tuple[float, float, float]:
    """Return the changes of P(correct) where the baseline is correct and wrong, and of confidence where it is wrong."""
    baseline, profile = compared.baseline, compared.profile
    return (
        profile.baseline_correct.pooled.probability - baseline.baseline_correct.pooled.probability,
        profile.baseline_wrong.pooled.probability - baseline.baseline_wrong.pooled.probability,
        profile.baseline_wrong.pooled.confidence - baseline.baseline_wrong.pooled.confidence,
    )


def _rows(title: str, arms: Sequence[Calibration], temperature: float) -> list[tuple[Cell, ...]]:
    if not arms[0].total:
        return []
    names = ("baseline", "profile", f"temperature {number(temperature)}")
    return [
        (
            Cell(title if at == 0 else ""),
            Cell(str(one.total) if at == 0 else ""),
            Cell(name),
            Cell(percent(one.accuracy), _interval(one.accuracy_interval, 100, 1)),
            Cell(_p(one), _interval(one.probability_interval, 1, 3)),
            Cell(f"{one.nll:.3f}"),
            Cell(percent(one.error)),
            Cell(f"{one.confidence:.3f}"),
        )
        for at, (name, one) in enumerate(zip(names, arms, strict=True))
    ]


def _p(one: Calibration) -> str:
    return f"{one.probability:.3f}"


def _interval(bounds: tuple[float, float], times: float, digits: int) -> str:
    return f"[{', '.join(f'{times * bound:.{digits}f}' for bound in bounds)}]"


def _signed(change: float) -> str:
    return minus(f"{change:+.3f}")
