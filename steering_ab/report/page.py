"""The page of a report, as blocks that HTML and Markdown are rendered from."""

import json
from collections.abc import Iterable, Iterator

from steering_ab.analysis.comparison import PairComparison
from steering_ab.analysis.result import Flip, Result
from steering_ab.datasets.dataset import FEWEST_FOR_A_TEST, Fault
from steering_ab.report.numbers import change, grade, interval, mean, p_value, seconds
from steering_ab.report.words import marked
from steering_profiles.reports.blocks import (
    Block,
    CodeBlock,
    Details,
    Page,
    Panel,
    Paragraph,
    Piece,
    Section,
    SideBySide,
)
from steering_profiles.reports.tables import Cell, Column, Table, Tone
from steering_profiles.reports.text import shortened

MOST_FLIPS = 60
"""Items shown side by side; the CSV file has all."""
_MOST_CHARACTERS = 3000
_MOST_FAULTS = 50
_PLANNED = (0.01, 0.02, 0.05, 0.1)


def page_of(result: Result) -> Page:
    """Return the page of ``result``."""
    items = sum(1 for item in result.dataset.items if any(item.id in graded.grades for graded in result.graded))
    judged = {item for graded in result.graded for by_item in graded.verdicts.values() for item in by_item}
    items = max(items, len(judged))
    arms = ", ".join(result.arms)
    sections = [
        Section("", tuple(_verdicts(result))),
        Section("What was not counted", tuple(_left_out(result))),
        Section("Arms", tuple(_arms(result))),
        Section("Differences", tuple(_differences(result))),
        Section("By tag", tuple(_by_tag(result))),
        Section("What the design could show", tuple(_design(result))),
        Section("Items that flipped", tuple(_flips(result))),
        Section("Lengths and times", tuple(_efforts(result))),
        Section("To run it again", tuple(_again(result))),
    ]
    return Page(
        name="report",
        window_title=f"{arms} on {result.dataset.name}",
        title=f"Comparison of {arms}",
        about=f"{items:,} items of {result.dataset.name}, answered by {result.settings.model} {_where(result)}.",
        sections=tuple(section for section in sections if section.blocks),
    )


def verdict_text(comparison: PairComparison) -> str:
    """Return what a comparison shows, in one sentence."""
    name = f"{comparison.arm} − {comparison.reference}"
    unit = " points" if comparison.is_rate else ""
    shown = (
        f"{change(comparison.difference, rate=comparison.is_rate)}{unit} "
        f"({interval(comparison.interval, rate=comparison.is_rate, signed=True)}), p {_p(comparison)}"
    )
    said = {
        "higher": f"{comparison.arm} is higher than {comparison.reference}",
        "lower": f"{comparison.arm} is lower than {comparison.reference}",
        "not shown": "no difference is shown",
    }[comparison.verdict]
    text = f"{comparison.grader}: {said}. {name}: {shown}."
    if comparison.has_spread:
        return text
    items = f"All {comparison.items:,} items differ by the same"
    return f"{text} {items}, so the interval has no width and tells nothing of other items."


def _verdicts(result: Result) -> Iterator[Block]:
    for comparison in result.comparisons:
        yield Paragraph(verdict_text(comparison), _tone(comparison))
    for checked in result.checked:
        yield Paragraph(f"Required: {checked}.", "better" if checked.holds else "worse")
    if 0 < len(result.dataset.items) < FEWEST_FOR_A_TEST:
        yield Paragraph(
            f"With fewer than {FEWEST_FOR_A_TEST} items no difference of rates can be significant at the level of 5%.",
            "worse",
        )


def _left_out(result: Result) -> Iterator[Block]:
    groups: Iterable[tuple[str, Iterable[object], int]] = (
        ("cannot be used", result.dataset.faults, len(result.dataset.faults)),
        ("are refused by the server", result.refused, len(result.refused)),
        ("were not answered", result.unanswered, len(result.unanswered)),
    )
    for what, faults, number in groups:
        if number:
            yield Details(f"{number:,} lines {what}", _listed(faults, number))
    if result.failures:
        number = len(result.failures)
        yield Paragraph("Some answers could not be graded; their items do not count for that grader.", "worse")
        yield Details(f"{number:,} grades failed", _listed(result.failures, number))
    for graded in result.graded:
        unfit = len(result.dataset.items) - len(graded.grading.by_item)
        if unfit:
            yield Paragraph(f"{graded.grading.name}: {unfit:,} items have nothing that this grader could grade by.")
    if result.dataset.repeated:
        yield Paragraph(
            f"{result.dataset.repeated:,} items ask what an earlier item asks. They are no evidence of their own, so "
            "the intervals are narrower than they should be.",
            "worse",
        )


def _listed(faults: Iterable[object], number: int) -> str:
    lines = [str(fault) for fault, _ in zip(faults, range(_MOST_FAULTS), strict=False)]
    return "\n".join([*lines, *([f"and {number - _MOST_FAULTS:,} more"] if number > _MOST_FAULTS else [])])


def _arms(result: Result) -> Iterator[Block]:
    tags = len(result.dataset.tags)
    rows = []
    for rate in result.rates:
        name = () if not tags else (Cell(rate.tag or "all items"),)
        shown = (grade(rate.mean, rate=rate.yes_no), interval(rate.interval, rate=rate.yes_no))
        rows.append((Cell(rate.grader), *name, Cell(rate.arm), *map(Cell, (f"{rate.items:,}", *shown))))
    if not rows:
        return
    heads = [Column("grader", numeric=False), *([Column("items with tag", numeric=False)] if tags else [])]
    columns = (*heads, Column("arm", numeric=False), Column("items"), Column("rate or mean"), Column("95% interval"))
    caption = "Mean grade of each arm. Intervals of rates are Wilson's, those of scores are bootstrapped over items."
    if result.settings.repeats > 1:
        caption += " An item that is answered several times counts once, with its mean grade."
    yield Table(caption, columns, tuple(rows))


def _differences(result: Result) -> Iterator[Block]:
    if not result.comparisons:
        return
    caption = "Paired differences on the same items, rates in percentage points."
    corrected = any(comparison.adjusted_p is not None for comparison in result.comparisons)
    if corrected:
        caption += " p-values are corrected for the number of pairs by Holm's method; intervals are not."
    yield _comparison_table(caption, result.comparisons)
    for method in dict.fromkeys((each.interval_method, each.test) for each in result.comparisons):
        yield Paragraph(f"{method[0][0].upper()}{method[0][1:]}; {method[1]}, two-sided.")
    for each in result.comparisons:
        if each.disagreements is not None:
            yield Paragraph(
                f"The judge changed its mind with the order of the answers on {each.disagreements:,} of "
                f"{each.items:,} items ({each.arm}, {each.reference}); these count as ties."
            )


def _by_tag(result: Result) -> Iterator[Block]:
    if not result.tagged:
        return
    number = len(result.tagged)
    said = (
        f"The p-values are corrected by Holm's method for the {number} comparisons by tag of a grader: a difference "
        "that is significant here would be so by chance in at most 5% of such tables. The intervals are not corrected."
        if any(each.adjusted_p is not None for each in result.tagged)
        else "There is one comparison by tag, so nothing is corrected."
    )
    yield Paragraph(said)
    yield _comparison_table("Paired differences on the items of each tag.", result.tagged, tags=True)


def _comparison_table(caption: str, comparisons: Iterable[PairComparison], *, tags: bool = False) -> Table:
    rows = tuple(
        (
            Cell(each.grader),
            *([Cell(each.tag or "")] if tags else []),
            Cell(f"{each.arm} − {each.reference}"),
            Cell(f"{each.items:,}"),
            Cell(change(each.difference, rate=each.is_rate), tone=_tone(each)),
            Cell(interval(each.interval, rate=each.is_rate, signed=True)),
            Cell(_p(each)),
            Cell(f"{each.wins:,} / {each.ties:,} / {each.losses:,}"),
            Cell(each.verdict),
        )
        for each in comparisons
    )
    columns = (
        Column("grader", numeric=False),
        *([Column("tag", numeric=False)] if tags else []),
        Column("pair", numeric=False),
        Column("items"),
        Column("difference"),
        Column("95% interval"),
        Column("p"),
        Column("wins / ties / losses"),
        Column("shown", numeric=False),
    )
    return Table(caption, columns, rows)


def _design(result: Result) -> Iterator[Block]:
    rows = []
    for each in result.comparisons:
        planned = sorted({*_PLANNED, result.detect}) if each.is_rate else [abs(each.difference) or each.deviation]
        detectable = "–" if each.detectable is None else change(each.detectable, rate=each.is_rate).lstrip("+")
        for difference in planned:
            needed = each.items_needed(difference) if difference else None
            more = "–" if needed is None else f"{max(0, needed - each.items):,}"
            rows.append(
                (
                    Cell(each.grader),
                    Cell(f"{each.arm} − {each.reference}"),
                    Cell(f"{each.items:,}"),
                    Cell(detectable),
                    Cell(change(difference, rate=each.is_rate).lstrip("+")),
                    Cell("–" if needed is None else f"{needed:,}"),
                    Cell(more),
                )
            )
    if rows:
        yield Table(
            "What a two-sided test at 5% finds with a power of 80%, if as many items are discordant (or the items' "
            "differences vary as much) as here. Rates are in percentage points.",
            (
                Column("grader", numeric=False),
                Column("pair", numeric=False),
                Column("items"),
                Column("smallest difference found"),
                Column("for a difference of"),
                Column("items needed"),
                Column("items still needed"),
            ),
            tuple(rows),
        )


def _flips(result: Result) -> Iterator[Block]:
    for graded in result.graded[:1]:
        flips = result.flips(graded.grading.name)
        if not flips:
            yield Paragraph(f"No item was graded differently by {graded.grading.name}.")
            return
        shown = _both_kinds(flips)
        if len(shown) < len(flips):
            yield Paragraph(f"{len(shown)} of {len(flips):,} items that flipped; items.csv has all.")
        for flip in shown:
            yield from _flip(result, flip)


def _both_kinds(flips: tuple[Flip, ...]) -> list[Flip]:
    """Return as many flips as are shown: at most half of them are gains, if there are enough losses."""
    losses, gains = ([flip for flip in flips if (flip.difference > 0) == gained] for gained in (False, True))
    few = losses[: max(MOST_FLIPS // 2, MOST_FLIPS - len(gains))]
    return few + gains[: MOST_FLIPS - len(few)]


def _flip(result: Result, flip: Flip) -> Iterator[Block]:
    texts = []
    for arm in (flip.reference, flip.arm):
        answers = (result.answer(flip.item, repeat, arm) for repeat in range(result.settings.repeats))
        texts.append("\n---\n".join(shortened(each.text, _MOST_CHARACTERS) for each in answers if each is not None))
    first, second = marked(*texts)
    tones: tuple[Tone, Tone] = ("worse", "better") if flip.difference > 0 else ("better", "worse")
    title = f"{flip.item.id} (line {flip.item.line})"
    title += f", {', '.join(flip.item.tags)}" if flip.item.tags else ""
    title += f": {flip.arm} {'gained' if flip.difference > 0 else 'lost'}"
    asked = Panel("asked", (Piece(shortened(flip.item.question, _MOST_CHARACTERS)),))
    expected = flip.item.expected
    panels = [asked, *([Panel("expected", (Piece("\n".join(expected)),))] if expected else [])]
    yield SideBySide(title, (*panels, Panel(flip.reference, first, tones[0]), Panel(flip.arm, second, tones[1])))


def _efforts(result: Result) -> Iterator[Block]:
    rows = tuple(
        (
            Cell(each.arm),
            Cell(f"{each.answers:,}"),
            Cell(mean(each.characters)),
            Cell(mean(each.tokens)),
            Cell(mean(each.prompt_tokens)),
            Cell("–" if each.cut is None else f"{100 * each.cut:.1f}%"),
            Cell(seconds(each.first_token_seconds)),
            Cell(seconds(each.median_seconds)),
            Cell(seconds(each.slow_seconds)),
        )
        for each in result.efforts
    )
    caption = "Means over answers, and medians of times."
    if any("profiles" in described for described in result.settings.described.values()):
        caption += " All arms of an item run in one batch, so the times are those of requests with several arms."
    yield Table(
        caption,
        (
            Column("arm", numeric=False),
            Column("answers"),
            Column("characters"),
            Column("tokens"),
            Column("tokens of the prompt"),
            Column("cut at max_tokens"),
            Column("to the first token"),
            Column("to the end"),
            Column("95th percentile"),
        ),
        rows,
    )


def _again(result: Result) -> Iterator[Block]:
    command = result.about.get("command")
    if command:
        yield CodeBlock(str(command))
    settings = result.settings
    rows = [("model", settings.model), ("asked", _where(result)), ("seed", str(settings.seed))]
    rows += [("temperature", f"{settings.temperature:g}"), ("max_tokens", str(settings.max_tokens))]
    rows += [("repeats", str(settings.repeats))]
    rows += [("data set", f"{result.dataset.name} {result.dataset.content_hash or ''}".strip())]
    rows += [("graders", ", ".join(graded.grading.name for graded in result.graded))]
    rows += [(f"arm {arm}", json.dumps(settings.described.get(arm), ensure_ascii=False)) for arm in result.arms]
    rows += [(name, str(version)) for name, version in (result.about.get("versions") or {}).items()]
    rows += [(name, str(value)) for name, value in result.about.items() if name not in ("command", "versions")]
    yield Table(
        "Everything that the answers and their grades depend on.",
        (Column("setting", numeric=False), Column("value", numeric=False, code=True)),
        tuple((Cell(name), Cell(value)) for name, value in rows),
    )


def _where(result: Result) -> str:
    where = result.settings.where
    return f"at {where}" if "://" in where else where


def _p(comparison: PairComparison) -> str:
    return p_value(comparison.p)


def _tone(comparison: PairComparison) -> Tone:
    """Return whether a difference is for the better; a score may be one of which less is better."""
    if comparison.verdict == "not shown" or not (comparison.is_rate or comparison.disagreements is not None):
        return ""
    return "better" if comparison.verdict == "higher" else "worse"


def faults_text(faults: Iterable[Fault], most: int = 3) -> str:
    """Return the first faults in one line."""
    listed = list(faults)
    return "; ".join(map(str, listed[:most])) + (f"; and {len(listed) - most:,} more" if len(listed) > most else "")
