"""What a gate buys: the same settings of the final layer without it and behind it, on the task and on other text."""

from collections.abc import Iterator
from dataclasses import dataclass

from steering_profiles.evaluation.calibration import Calibration, CalibrationComparison, GroupedCalibration
from steering_profiles.evaluation.side_effects import SideEffects, TextEffect
from steering_profiles.fitting.final_layer import WithoutGate
from steering_profiles.flags import NLL_LIMIT, is_beyond
from steering_profiles.reports.tables import ALL, AccuracyChange, Cell, Column, Table
from steering_profiles.reports.text import percent, signed_percent

_ARMS = ("baseline", "without the gate", "behind the gate")


@dataclass(frozen=True)
class GateComparison:
    """The plain model and a profile's settings without their gate and behind it, where nothing was chosen by it."""

    test: tuple[GroupedCalibration, GroupedCalibration, GroupedCalibration]
    """Of the plain model, without the gate, behind it."""
    texts: tuple[SideEffects, SideEffects]
    """Without the gate, behind it; of the same texts."""

    @property
    def prompts(self) -> dict[str, tuple[Calibration, ...]]:
        """Group to the figures of the plain model, without the gate and behind it; all groups together first."""
        shown = {ALL: tuple(one.pooled for one in self.test)}
        groups = self.test[0].groups
        if len(groups) > 1:
            shown |= {group: tuple(one.groups[group] for one in self.test) for group in groups}
        return shown

    @property
    def pairs(self) -> list[tuple[TextEffect, TextEffect]]:
        """The effect on each text, without the gate and behind it."""
        return list(zip(*(some.texts for some in self.texts), strict=True))


def gate_comparison(
    without: WithoutGate | None, test: CalibrationComparison | None, side_effects: SideEffects | None
) -> GateComparison | None:
    """Set what is known without the gate beside what is known behind it; None where one of them is not known."""
    if without is None or test is None or side_effects is None:
        return None
    return GateComparison(
        test=(test.baseline.all_prompts, without.test.all_prompts, test.profile.all_prompts),
        texts=(without.side_effects, side_effects),
    )


def gate_sentences(bought: GateComparison) -> Iterator[str]:
    """Say what the gate costs on the task and what it saves elsewhere."""
    plain, without, behind = (one.pooled for one in bought.test)
    points, probability = (
        [getattr(one, figure) - getattr(plain, figure) for one in (without, behind)]
        for figure in ("accuracy", "probability")
    )
    yield (
        f"On test the same settings change accuracy by {100 * points[0]:+.1f} points without the gate and by "
        f"{100 * points[1]:+.1f} behind it, mean P(correct) by {probability[0]:+.3f} and {probability[1]:+.3f}, and "
        f"NLL by {without.nll - plain.nll:+.3f} and {behind.nll - plain.nll:+.3f}."
    ).replace("-", "−")
    if bought.pairs:
        opened, gated = (some.worst for some in bought.texts)
        yield (
            f"NLL of other text changes by {signed_percent(opened.nll_increase)} at worst ({opened.name}) without the "
            f"gate, by {signed_percent(gated.nll_increase)} ({gated.name}) behind it."
        )


def gate_task_table(bought: GateComparison) -> Table:
    """Accuracy, P(correct) and NLL on test, per group, without the gate and behind it."""
    rows = []
    for title, figures in bought.prompts.items():
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
        "Test: accuracy in percent and its change in points, NLL of the correct answer in nats",
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


def gate_texts_table(bought: GateComparison) -> Table:
    """How well other text is still predicted, without the gate and behind it."""
    rows = []
    for pair in bought.pairs:
        cells = [Cell(pair[0].name), Cell(str(pair[0].tokens)), Cell(f"{pair[0].nll_before:.4f}")]
        for text in pair:
            past = is_beyond(text.nll_increase)
            note = signed_percent(text.nll_increase) + (f" past {NLL_LIMIT:.0%}" if past else "")
            cells += [Cell(f"{text.nll_after:.4f}", note, "worse" if past else ""), Cell(percent(text.agreement))]
        rows.append(tuple(cells))
    return Table(
        "Prediction of other text: negative log-likelihood in nats per token and its change, and how often the "
        "likeliest next token stays the same",
        (
            Column("text", numeric=False),
            Column("tokens"),
            Column("NLL, baseline"),
            *(Column(heading) for arm in _ARMS[1:] for heading in (f"NLL {arm}", "same next token, %")),
        ),
        tuple(rows),
    )
