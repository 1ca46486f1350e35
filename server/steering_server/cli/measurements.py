"""Results of ``steer evaluate``, as tables for the terminal and as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from steering_profiles.evaluation import Accuracy, CalibrationComparison, SideEffects, humaneval
from steering_profiles.evaluation.accuracy import least_change
from steering_profiles.evaluation.held_out import SOLUTIONS
from steering_profiles.evaluation.side_effect_rows import side_effect_rows
from steering_profiles.side_effect_warnings import (
    NLL_LIMIT,
    SHARE_LIMIT,
    percent,
    shares_over_limit,
    texts_over_limit,
)
from steering_profiles.tasks import Example
from steering_profiles.tokenization import Vocabulary
from steering_server.cli.calibration import show_calibration, show_tempered

BeforeAfter = tuple[Accuracy, Accuracy]
_MOST_SHOWN = 40


@dataclass(frozen=True)
class WrongAnswer:
    """A prompt that the model answers incorrectly with the profile."""

    prompt: str
    right: str
    given: str


def wrong_answers(examples: Sequence[Example], predicted: Sequence[int], vocabulary: Vocabulary) -> list[WrongAnswer]:
    """Return those of ``examples`` that the ``predicted`` tokens answer wrong."""
    return [
        WrongAnswer(example.text, vocabulary.text_of(example.answer), vocabulary.text_of(token))
        for example, token in zip(examples, predicted, strict=True)
        if token != example.answer
    ]


@dataclass(frozen=True)
class Measurement:
    """Measurements without and with a profile."""

    title: str
    sets: dict[str, BeforeAfter]
    """Accuracy on each set of prompts. A set may have no prompts of some sub-tasks."""
    side_effects: SideEffects | None = None
    """None if they were not measured."""
    pass_at_1: BeforeAfter | None = None
    calibration: Mapping[str, CalibrationComparison] = field(default_factory=dict)
    """Calibration on each set of prompts; empty if it was not measured."""
    wrong: Sequence[WrongAnswer] = ()
    """Wrong answers with the profile, if every prompt of the task was asked."""

    @property
    def beyond_limit(self) -> list[str]:
        """The texts whose NLL increases, and the last words and minimal pairs that lose, by more than the limits."""
        return self._texts_over_limit + self._shares_over_limit

    @property
    def _texts_over_limit(self) -> list[str]:
        texts = self.side_effects.texts if self.side_effects is not None else ()
        return texts_over_limit({text.name: text.nll_increase for text in texts})

    @property
    def _shares_over_limit(self) -> list[str]:
        return shares_over_limit(self.side_effects.shares) if self.side_effects is not None else []

    def record(self) -> dict[str, Any]:
        """Return the measurements as plain data for JSON."""
        record: dict[str, Any] = {"accuracy": {name: _figures(*both) for name, both in self.sets.items()}}
        if self.wrong:
            record["wrong"] = [asdict(answer) for answer in self.wrong]
        if self.calibration:
            record["calibration"] = {name: compared.to_json() for name, compared in self.calibration.items()}
        if self.side_effects is not None:
            record |= {
                "side_effects": self.side_effects.record(),
                "nll_limit": NLL_LIMIT,
                "share_limit": SHARE_LIMIT,
                "flags": self.beyond_limit,
            }
        if self.pass_at_1 is not None:
            record["humaneval_pass_at_1"] = {"problems": self.pass_at_1[0].total, **_pooled(*self.pass_at_1)}
        return record

    def show(self, console: Console) -> None:
        """Print the measurements."""
        console.print(self._accuracy_table())
        for answer in self.wrong[:_MOST_SHOWN]:
            asked = answer.prompt.rpartition("\n")[2]
            console.print(f"wrong: {asked!r}: {answer.given!r} for {answer.right!r}", style="yellow", markup=False)
        if len(self.wrong) > _MOST_SHOWN:
            console.print(
                f"and {len(self.wrong) - _MOST_SHOWN} more wrong answers; --json writes all of them", style="yellow"
            )
        for name, compared in self.calibration.items():
            show_calibration(console, name, compared)
        show_tempered(console, self.calibration)
        if self.side_effects is not None:
            console.print(_side_effects_table(self.side_effects))
            if SOLUTIONS not in {text.name for text in self.side_effects.texts}:
                left_out = f"left out: {SOLUTIONS}; install them with: {humaneval.INSTALL}"
                console.print(left_out, style="yellow", markup=False)
        if self.pass_at_1 is not None:
            cell = _cell(*self.pass_at_1).replace("\n", ", 95% intervals ")
            console.print(f"HumanEval pass@1, {self.pass_at_1[0].total} problems, greedy, %: {cell}")
            console.print(humaneval.coarseness(*self.pass_at_1), highlight=False)
        texts, shares = self._texts_over_limit, self._shares_over_limit
        if texts:
            over = f"NLL increase above the limit of {percent(NLL_LIMIT)}: {', '.join(texts)}"
            console.print(over, style="yellow", markup=False)
        if shares:
            over = f"loss above the limit of {100 * SHARE_LIMIT:g} point: {', '.join(shares)}"
            console.print(over, style="yellow", markup=False)
        if self.side_effects is not None and not texts and not shares:
            limits = f"{percent(NLL_LIMIT)} of the NLL, {100 * SHARE_LIMIT:g} point of last words and minimal pairs"
            console.print(f"side effects are within the limits: {limits}", markup=False)

    def _accuracy_table(self) -> Table:
        groups = list(dict.fromkeys(group for before, _ in self.sets.values() for group in before.counts))
        title = f"{self.title}: accuracy without -> with, %, and 95% intervals; the largest loss first"
        table = Table("prompts", *map(escape, groups), "all", title=escape(title))
        for name, (before, after) in sorted(self.sets.items(), key=lambda named: least_change(*named[1])):
            cells = [_cell(before, after, group) if group in before.counts else "" for group in groups]
            table.add_row(escape(name), *cells, _cell(before, after))
        return table


def _cell(before: Accuracy, after: Accuracy, group: str | None = None) -> str:
    (without, without_interval), (with_, with_interval) = (_percentage(each, group) for each in (before, after))
    return f"{without} -> {with_}\n[dim]{without_interval} -> {with_interval}[/]"


def _percentage(accuracy: Accuracy, group: str | None) -> tuple[str, str]:
    correct, total = (accuracy.correct, accuracy.total) if group is None else accuracy.counts[group]
    low, high = accuracy.interval(group)
    return f"{100 * correct / total:.1f}", f"{low:.0f}..{high:.0f}"


def _side_effects_table(effects: SideEffects) -> Table:
    """Return the side effects, what is worse by more than its interval first."""
    columns = ("figure", "of", "count", "without", "with", "change", "95% interval", "")
    table = Table(*columns, title="side effects: what is worse by more than its 95% interval first")
    for row in side_effect_rows(effects):
        table.add_row(
            row.measure,
            row.of,
            f"{row.count} {row.counted}",
            row.shown(row.before),
            row.shown(row.after),
            row.change_shown,
            row.interval_shown,
            row.verdict,
            style="yellow" if row.verdict == "worse" else None,
        )
    return table


def _figures(before: Accuracy, after: Accuracy) -> dict[str, Any]:
    return {
        "without": before.percent,
        "with": after.percent,
        "intervals": {"without": _intervals(before), "with": _intervals(after)},
        "all": _pooled(before, after),
    }


def _intervals(accuracy: Accuracy) -> dict[str, list[float]]:
    return {group: _rounded(accuracy.interval(group)) for group in accuracy.counts}


def _pooled(before: Accuracy, after: Accuracy) -> dict[str, Any]:
    return {
        "without": round(100 * before.correct / before.total, 1),
        "with": round(100 * after.correct / after.total, 1),
        "intervals": {"without": _rounded(before.interval()), "with": _rounded(after.interval())},
    }


def _rounded(interval: tuple[float, float]) -> list[float]:
    return [round(bound, 1) for bound in interval]
