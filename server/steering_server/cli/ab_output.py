"""What ``steer ab`` prints: the result as tables, and what ends it with status 1."""

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from steering_ab.errors import ABError
from steering_ab.report.numbers import change, grade, interval, p_value
from steering_ab.report.page import faults_text, verdict_text
from steering_profiles.reports.text import one_line, printable

if TYPE_CHECKING:
    from steering_ab.analysis.result import Result
    from steering_ab.datasets import Dataset

_COLOURS = {"higher": "green", "lower": "red", "not shown": ""}


class NotDecided(ABError):
    """A requirement does not hold, or some items were not answered or graded."""


def warn_of_faults(console: Console, dataset: "Dataset") -> None:
    """Name the lines that are left out."""
    if dataset.faults:
        number = len(dataset.faults)
        _print(console, f"{number:,} line{'s' if number > 1 else ''} left out: {faults_text(dataset.faults)}", "yellow")
    if dataset.repeated:
        _print(
            console,
            f"{dataset.repeated:,} items ask what an earlier item asks; they count as if they did not",
            "yellow",
        )


def show(console: Console, result: "Result") -> None:
    """Print rates, differences and the requirements."""
    several = len(result.graded) > 1
    rates = [rate for rate in result.rates if rate.tag is None]
    if rates:
        table = Table(*(["grader"] if several else []), "arm", *map(_right, ("items", "rate or mean", "95% interval")))
        for rate in rates:
            shown = (grade(rate.mean, rate=rate.yes_no), interval(rate.interval, rate=rate.yes_no))
            name = [rate.grader] if several else []
            table.add_row(*map(_plain, (*name, rate.arm, f"{rate.items:,}", *shown)))
        console.print(table)
    for reference, arm in result.pairs:
        _compared(console, result, reference, arm)
    if len(result.tagged) > 1:
        _print(console, f"p by tag is corrected by Holm's method for {len(result.tagged)} comparisons", "dim")
    for comparison in result.comparisons:
        _print(console, verdict_text(comparison), _COLOURS[comparison.verdict] if comparison.is_rate else "")
        if comparison.disagreements:
            text = f"the judge's verdict changed with the order on {comparison.disagreements:,} items, which are ties"
            _print(console, text, "yellow")
    if result.refused:
        number = len(result.refused)
        _print(console, f"{number:,} lines are refused by the server: {faults_text(result.refused)}", "yellow")
    for checked in result.checked:
        _print(console, str(checked), "green" if checked.holds else "red")


def require_all(result: "Result") -> None:
    """Check that every item was answered and graded, and that every requirement holds.

    Raises:
        NotDecided: this is not so; the message says what is kept and what to do.
    """
    failing = [checked for checked in result.checked if not checked.holds]
    lines = [f"a requirement does not hold: {checked.requirement.text}: {checked.why}" for checked in failing]
    if result.unanswered:
        again = "run the same command again to ask for them"
        number = len(result.unanswered)
        lines.append(f"{number:,} items have no answer ({faults_text(result.unanswered)}); {again}")
    if result.failures:
        number, first = len(result.failures), result.failures[0]
        lines.append(
            f"{number:,} answers could not be graded ({first}); the answers are kept in {result.folder}, and "
            "--regrade grades them again"
        )
    if lines:
        raise NotDecided("\n       ".join(lines))


def _compared(console: Console, result: "Result", reference: str, arm: str) -> None:
    """Print the comparisons of a pair of arms: on all items, and by tag."""
    several = len(result.graded) > 1
    title = Text(f"{arm} − {reference}, {result.comparisons[0].grader}" if not several else f"{arm} − {reference}")
    heads = [*(["grader"] if several else []), "tag"]
    headings = ("items", "difference", "95% interval", "p", "win/tie/loss")
    table = Table(*heads, *map(_right, headings), title=title, title_justify="left", title_style="bold")
    for each in (*result.comparisons, *result.tagged):
        if (each.reference, each.arm) != (reference, arm):
            continue
        cells = [*([each.grader] if several else []), each.tag or "all", f"{each.items:,}"]
        cells += [change(each.difference, rate=each.is_rate), interval(each.interval, rate=each.is_rate, signed=True)]
        cells += [p_value(each.p), f"{each.wins}/{each.ties}/{each.losses}"]
        table.add_row(*map(_plain, cells), style=_COLOURS[each.verdict] if each.is_rate else "")
    if table.rows:
        console.print(table)


def _right(heading: str) -> Column:
    return Column(heading, justify="right")


def _plain(text: str) -> Text:
    return Text(one_line(text))  # a tag may hold control characters, which a terminal would obey


def _print(console: Console, text: str, style: str = "") -> None:
    console.print(printable(text), style=style or None, markup=False, highlight=False, soft_wrap=True)
