"""What a report says about confidence: the figures of three arms side by side, and what to think of them."""

from collections.abc import Iterator, Sequence

from steering_profiles.evaluation.calibration import Calibration, CalibrationComparison
from steering_profiles.fitting.final_layer import PLAIN, MeasuredCandidate
from steering_profiles.reports.report import FinalLayerSearch
from steering_profiles.reports.tables import ALL, Cell, Column, Table, Tone
from steering_profiles.reports.text import number, percent, signed_percent

_POINT = 0.005
"""Changes of a probability that are less than this are none."""


def calibration_table(name: str, compared: CalibrationComparison) -> Table:
    """What each arm does: on all prompts, per group, and where the plain model's answer is right or wrong."""
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
        f"Calibration on {name}: accuracy and expected calibration error in percent, NLL of the correct answer in nats "
        "(in brackets: 95% confidence interval)",
        (
            Column("subset", numeric=False),
            Column("prompts"),
            Column("arm", numeric=False),
            Column("accuracy"),
            Column("P(correct)"),
            Column("NLL"),
            Column("calibration error"),
            Column("confidence"),
        ),
        tuple(rows),
    )


def verdict(compared: CalibrationComparison) -> Iterator[tuple[str, Tone]]:
    """Say what the comparison shows, and say so where a temperature does as well or where all is but sharpened."""
    baseline, profile, tempered = (arm.all_prompts.pooled for arm in compared.arms)
    yield (
        f"Mean P(correct) {_p(baseline)} without, {_p(profile)} with the profile, {_p(tempered)} with temperature "
        f"{number(compared.temperature)} alone; NLL {baseline.nll:.3f}, {profile.nll:.3f} and {tempered.nll:.3f}.",
        "",
    )
    if profile.nll >= tempered.nll:
        yield "By NLL the temperature alone does as well as the profile, or better.", "worse"
    else:
        yield "By NLL the profile is better than the temperature alone.", "better"
    if profile.nll > baseline.nll:
        yield "By NLL the profile is worse than the plain model.", "worse"
    right = compared.profile.baseline_correct.pooled.probability - compared.baseline.baseline_correct.pooled.probability
    correct = compared.profile.baseline_wrong.pooled.probability - compared.baseline.baseline_wrong.pooled.probability
    sure = compared.profile.baseline_wrong.pooled.confidence - compared.baseline.baseline_wrong.pooled.confidence
    yield (
        f"Where the plain model is right, P(correct) changes by {_signed(right)}; where it is wrong, P(correct) "
        f"changes by {_signed(correct)} and confidence by {_signed(sure)}.",
        "",
    )
    if sharpens_only(compared):
        yield "So the gain is one of sharpening: wrong answers gain as much confidence as right ones.", "worse"


def sharpens_only(compared: CalibrationComparison) -> bool:
    """Return whether P(correct) rises where the plain model is right, confidence where it is wrong rises as much, and
    no more answers are right.
    """
    baseline, profile = compared.baseline, compared.profile
    right = profile.baseline_correct.pooled.probability - baseline.baseline_correct.pooled.probability
    sure = profile.baseline_wrong.pooled.confidence - baseline.baseline_wrong.pooled.confidence
    return (
        right > _POINT and sure >= right and profile.all_prompts.pooled.correct <= baseline.all_prompts.pooled.correct
    )


def search_sentences(search: FinalLayerSearch) -> Iterator[tuple[str, Tone]]:
    """Say what was chosen of the final layer's settings, and what the limit on other text's NLL cost."""
    chosen, unlimited = search.chosen, search.without_nll_limit
    if chosen.candidate == PLAIN:
        yield "Nothing that is allowed is better on dev than the plain model: this profile changes nothing.", "worse"
    else:
        yield f"Chosen on dev: {_outcome(chosen)}.", ""
    if unlimited.candidate != chosen.candidate:
        gates = " and without gates" if chosen.candidate.gate is not None else ""
        yield f"Without the limit on other text{gates}, the choice would have been {_outcome(unlimited)}.", ""
    if search.rejected is not None:
        best = search.rejected.measured
        yield f"The best on dev is not allowed, {_outcome(best)}: {'; '.join(search.rejected.reasons)}.", ""


def final_layer_table(grid: Sequence[MeasuredCandidate]) -> Table:
    """Every point of a search over the final layer's settings, the best on dev first."""
    formats = list(dict.fromkeys(name for m in grid if m.other for name in m.other.fit_formats))
    rows = []
    for m in sorted(grid, key=lambda m: (m.dev.nll, m.candidate.total_change)):
        there = m.other
        besides = (
            [signed_percent(there.nll_increase), *(f"{there.fit_formats[name].nll:.4f}" for name in formats)]
            if there
            else []
        )
        rows.append(
            (
                Cell(number(m.candidate.self_only_attention)),
                Cell(number(m.candidate.intercept_scale)),
                Cell(m.candidate.source or "–"),
                Cell("–" if m.candidate.gate is None else str(m.candidate.gate)),
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
        Column("dev NLL"),
        Column("P(correct)"),
        Column("accuracy, %"),
        Column("NLL of other text"),
        *(Column(f"NLL, {name}") for name in formats),
    )
    caption = (
        "Points of the search, the best on dev first; nothing more was measured of those worse than the plain model"
    )
    return Table(caption, columns, tuple(rows))


def _outcome(measured: MeasuredCandidate) -> str:
    nll_increase = (
        "" if measured.other is None else f", NLL of other text {signed_percent(measured.other.nll_increase)}"
    )
    return f"{measured.candidate} (NLL {measured.dev.nll:.4f}, P(correct) {measured.dev.probability:.3f}{nll_increase})"


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
    return f"{change:+.3f}".replace("-", "−")
