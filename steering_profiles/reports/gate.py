"""Effect of a gate: the same final-layer settings without and with it, on the task and on other text."""

from collections.abc import Iterator
from dataclasses import dataclass

from steering_profiles.evaluation.calibration import Calibration, CalibrationComparison, GroupedCalibration
from steering_profiles.evaluation.side_effects import SideEffects, TextEffect
from steering_profiles.fitting.final_layer import WithoutGate
from steering_profiles.reports.accuracy_tables import AccuracyChange
from steering_profiles.reports.tables import ALL, Cell, Column, Table
from steering_profiles.reports.text import minus, percent, signed_percent
from steering_profiles.side_effect_warnings import NLL_LIMIT, exceeds_limit

_ARMS = ("baseline", "without gate", "with gate")


@dataclass(frozen=True)
class GateComparison:
    """Results of the unsteered model and of a profile's settings without and with their gate, on unseen data."""

    test: tuple[GroupedCalibration, GroupedCalibration, GroupedCalibration]
    """Calibration on test of the unsteered model, without gate, with gate."""
    texts: tuple[SideEffects, SideEffects]
    """Side effects without gate and with gate, on the same texts."""

    @property
    def prompts(self) -> dict[str, tuple[Calibration, ...]]:
        """Calibration of the unsteered model, without gate and with gate, for all groups pooled and for each group."""
        shown = {ALL: tuple(one.pooled for one in self.test)}
        groups = self.test[0].groups
        if len(groups) > 1:
            shown |= {group: tuple(one.groups[group] for one in self.test) for group in groups}
        return shown

    @property
    def pairs(self) -> list[tuple[TextEffect, TextEffect]]:
        """Effect on each text without gate and with gate."""
        return list(zip(*(some.texts for some in self.texts), strict=True))


def gate_comparison(
    without: WithoutGate | None, test: CalibrationComparison | None, side_effects: SideEffects | None
) -> GateComparison | None:
    """Return the comparison of ``without`` gate and with gate, or None if one of the results is missing."""
    if without is None or test is None or side_effects is None:
        return None
    return GateComparison(
        test=(test.baseline.all_prompts, without.test.all_prompts, test.profile.all_prompts),
        texts=(without.side_effects, side_effects),
    )


def gate_sentences(comparison: GateComparison) -> Iterator[str]:
    """Yield sentences on the cost of the gate on the task and its benefit on other text."""
    plain, without, gated = (one.pooled for one in comparison.test)
    points, probability = (
        [getattr(one, figure) - getattr(plain, figure) for one in (without, gated)]
        for figure in ("accuracy", "probability")
    )
    yield minus(
        f"On test, the settings change accuracy by {100 * points[0]:+.1f} points without the gate and by "
        f"{100 * points[1]:+.1f} points with it, mean P(correct) by {probability[0]:+.3f} and {probability[1]:+.3f}, "
        f"and NLL by {without.nll - plain.nll:+.3f} and {gated.nll - plain.nll:+.3f}."
    )
    if comparison.pairs:
        opened, closed = (some.worst for some in comparison.texts)
        yield (
            f"The largest NLL increase of other text is {signed_percent(opened.nll_increase)} ({opened.name}) without "
            f"the gate and {signed_percent(closed.nll_increase)} ({closed.name}) with it."
        )


def gate_task_table(comparison: GateComparison) -> Table:
    """Return accuracy, P(correct) and NLL on test, per group, without gate and with gate."""
    rows = []
    for title, figures in comparison.prompts.items():
        plain = figures[0]
        for at, (arm, one) in enumerate(zip(_ARMS, figures, strict=True)):
            changed = AccuracyChange(plain.correct, one.correct, one.total)
            rows.append(
                (
                    Cell("" if at else title),
                    Cell("" if at else str(one.total)),
                    Cell(arm),
                    Cell(percent(one.accuracy), changed.note, changed.tone),
                    Cell(f"{one.probability:.3f}"),
                    Cell(f"{one.nll:.3f}"),
                )
            )
    return Table(
        "Test: accuracy in percent and its change in percentage points, NLL of the correct answer in nats",
        (
            Column("sub-task", numeric=False),
            Column("prompts"),
            Column("arm", numeric=False),
            Column("accuracy"),
            Column("P(correct)"),
            Column("NLL"),
        ),
        tuple(rows),
    )


def gate_texts_table(comparison: GateComparison) -> Table:
    """Return the prediction of other text without gate and with gate."""
    rows = []
    for pair in comparison.pairs:
        cells = [Cell(pair[0].name), Cell(str(pair[0].tokens)), Cell(f"{pair[0].nll_before:.4f}")]
        for text in pair:
            above = exceeds_limit(text.nll_increase)
            note = signed_percent(text.nll_increase) + (f" above {NLL_LIMIT:.0%}" if above else "")
            cells += [Cell(f"{text.nll_after:.4f}", note, "worse" if above else ""), Cell(percent(text.agreement))]
        rows.append(tuple(cells))
    return Table(
        "Prediction of other text: negative log-likelihood (NLL) in nats per token, its relative change, and the share "
        "of positions at which the likeliest next token stays the same",
        (
            Column("text", numeric=False),
            Column("tokens"),
            Column("NLL baseline"),
            *(Column(heading) for arm in _ARMS[1:] for heading in (f"NLL {arm}", "same next token, %")),
        ),
        tuple(rows),
    )
