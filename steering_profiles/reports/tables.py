"""The tables of a report, as data: the page and the Markdown file show the same cells."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import JsonValue

from steering_profiles.evaluation.accuracy import Accuracy
from steering_profiles.reports.attention import HeadAttention
from steering_profiles.reports.report import RankedComponent, Report, ReportedRanking
from steering_profiles.reports.text import number, percent, shortened, signed_percent, visible
from steering_profiles.side_effect_warnings import NLL_LIMIT, is_beyond
from steering_profiles.store import content_hash

Tone = Literal["", "better", "worse"]

ALL = "all"
"""Heading of what is pooled over the groups."""
MOST_COLUMNS = 6
"""Groups that stand side by side; more of them go below each other."""
MOST_LISTED = 200
"""Components that a list shows besides those that the profile scales."""
_Z95 = 1.959963984540054
_LOOKED_AT = 4
_LONG = 12  # entries of a list, from which it is folded


@dataclass(frozen=True)
class Cell:
    """One cell: its text, what is added to it in words, and whether that is good."""

    text: str
    note: str = ""
    tone: Tone = ""


@dataclass(frozen=True)
class Column:
    """One column."""

    heading: str
    numeric: bool = True
    code: bool = False
    """Its cells are code or data, shown as they are."""
    code_heading: bool = False


@dataclass(frozen=True)
class Table:
    """A table and what it is of."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True)
class AccuracyChange:
    """Correct answers without and with the profile on the same prompts."""

    before: int
    after: int
    total: int

    @property
    def tone(self) -> Tone:
        """Which way it went, by the counts and not by rounded percentages."""
        return "worse" if self.after < self.before else "better" if self.after > self.before else ""

    @property
    def cell(self) -> Cell:
        """``58.0 → 100.0`` and by how much that is better or worse."""
        if not self.total:
            return Cell("–")
        before, after = percent(self.before / self.total), percent(self.after / self.total)
        return Cell(f"{before} → {after}", self.note, self.tone)

    @property
    def note(self) -> str:
        """``+42.0``, ``−8.0 worse``, or nothing where nothing changed."""
        points = f"{100 * (self.after - self.before) / self.total:+.1f}".replace("-", "−") if self.total else ""
        return {"better": points, "worse": f"{points} worse", "": ""}[self.tone]


def accuracy_change(before: Accuracy, after: Accuracy, group: str | None = None) -> AccuracyChange | None:
    """Return how ``group``, or all groups together, changed; None if the set has no such group."""
    if group is None:
        return AccuracyChange(before.correct, after.correct, before.total)
    if group not in before.counts or group not in after.counts:
        return None
    correct, total = before.counts[group]
    return AccuracyChange(correct, after.counts[group][0], total)


def groups_of(accuracies: Iterable[Accuracy]) -> list[str]:
    """Return every group that some of ``accuracies`` has, in the order in which they first appear."""
    return list(dict.fromkeys(group for accuracy in accuracies for group in accuracy.counts))


def headline_table(name: str, before: Accuracy, after: Accuracy) -> Table:
    """Accuracy per sub-task with 95% intervals."""
    rows = [_headline_row(group, *before.counts[group], *after.counts[group]) for group in before.counts]
    if len(rows) > 1:
        rows.append(_headline_row(ALL, before.correct, before.total, after.correct, after.total))
    return Table(
        f"Accuracy on {name}, % (in brackets: 95% confidence interval)",
        (
            Column("sub-task", numeric=False, code=True),
            Column("prompts"),
            Column("without"),
            Column("with"),
            Column("change"),
        ),
        tuple(rows),
    )


def sets_table(report: Report) -> Table:
    """Accuracy on every prompt set, per group and over all."""
    groups = groups_of(before for before, _ in report.accuracy.values())
    caption = "Accuracy without → with the profile, %"
    rows: list[tuple[Cell, ...]] = []
    if len(groups) <= MOST_COLUMNS:
        for name, (before, after) in report.accuracy.items():
            cells = [_change_cell(before, after, group) for group in groups]
            rows.append((Cell(name), Cell(str(before.total)), *cells, _change_cell(before, after)))
        by_group = tuple(Column(group, code_heading=True) for group in groups)
        return Table(
            caption, (Column("prompt set", numeric=False), Column("prompts"), *by_group, Column(ALL)), tuple(rows)
        )
    for name, (before, after) in report.accuracy.items():
        for group in before.counts:
            total = before.counts[group][1]
            rows.append((Cell(name), Cell(group), Cell(str(total)), _change_cell(before, after, group)))
        rows.append((Cell(name), Cell(ALL), Cell(str(before.total)), _change_cell(before, after)))
    columns = (
        Column("prompt set", numeric=False),
        Column("sub-task", numeric=False, code=True),
        Column("prompts"),
        Column("accuracy"),
    )
    return Table(caption, columns, tuple(rows))


def side_effects_table(report: Report) -> Table:
    """How well other text is still predicted."""
    rows = []
    for text in report.side_effects.texts if report.side_effects is not None else ():
        past = is_beyond(text.nll_increase)
        rows.append(
            (
                Cell(text.name),
                Cell(str(text.tokens)),
                Cell(f"{text.nll_before:.4f}"),
                Cell(f"{text.nll_after:.4f}"),
                Cell(signed_percent(text.nll_increase), f"past {NLL_LIMIT:.0%}" if past else "", _tone_if(past)),
                Cell(percent(text.agreement)),
            )
        )
    return Table(
        "Prediction of other text: negative log-likelihood in nats per token, and how often the likeliest next token "
        "stays the same",
        (
            Column("text", numeric=False),
            Column("tokens"),
            Column("NLL without"),
            Column("NLL with"),
            Column("change"),
            Column("same next token, %"),
        ),
        tuple(rows),
    )


def methods_table(report: Report) -> Table:
    """Ways of choosing components, side by side."""
    groups = groups_of(method.accuracy for method in report.comparison)
    shown = groups if 1 < len(groups) <= MOST_COLUMNS else []
    has_held_out = any(method.held_out is not None for method in report.comparison)
    has_nll_increase = any(method.nll_increase is not None for method in report.comparison)
    rows = []
    for method in report.comparison:
        accuracy = method.accuracy
        cells = [Cell(method.name), Cell(str(method.components)), Cell(method.scale)]
        cells += [_share_cell(*accuracy.counts.get(group, (0, 0))) for group in shown]
        cells.append(_interval_cell(accuracy.correct, accuracy.total))
        if has_held_out:
            pooled = method.held_out
            cells.append(Cell("–") if pooled is None else _interval_cell(pooled.correct, pooled.total))
        if has_nll_increase:
            past = method.nll_increase is not None and is_beyond(method.nll_increase)
            increase = "–" if method.nll_increase is None else signed_percent(method.nll_increase)
            cells.append(Cell(increase, f"past {NLL_LIMIT:.0%}" if past else "", _tone_if(past)))
        rows.append(tuple(cells))
    columns = [Column("method", numeric=False), Column("components"), Column("scale")]
    columns += [Column(group, code_heading=True) for group in shown]
    columns.append(Column("test"))
    columns += [Column("held-out formats")] if has_held_out else []
    columns += [Column("NLL of neutral text")] if has_nll_increase else []
    return Table("Test accuracy of each method, % (in brackets: 95% interval)", tuple(columns), tuple(rows))


def grid_table(report: Report) -> Table:
    """Dev accuracy at every point of the (k, alpha) grid."""
    measured = {(m.point.k, m.point.alpha): m.accuracy for m in report.grid}
    alphas = sorted({alpha for k, alpha in measured if k}) or sorted({alpha for _, alpha in measured})
    most = max(accuracy.total for accuracy in measured.values())
    rows = []
    for k in sorted({k for k, _ in measured}):
        row = [Cell(str(k) if k else "0 (plain)")]
        for alpha in alphas:
            accuracy = measured.get((k, alpha)) or (measured.get((0, 1.0)) if k == 0 else None)
            if accuracy is None or not accuracy.total:
                row.append(Cell("–"))
            else:
                note = "" if accuracy.total == most else f"of {accuracy.total}"
                row.append(Cell(percent(accuracy.correct / accuracy.total), note))
        rows.append(tuple(row))
    return Table(
        f"Dev accuracy, % of {most} prompts; points that could no longer win were measured on fewer, as noted",
        (Column("components"), *(Column(f"×{number(alpha)}") for alpha in alphas)),
        tuple(rows),
    )


def path_table(report: Report) -> Table:
    """The course of a stepwise search."""
    return Table(
        "Course of the search",
        (
            Column("step"),
            Column("components"),
            Column("total change (L1)"),
            Column("dev errors"),
            Column("of"),
            Column("NLL of neutral text"),
            Column("", numeric=False),
        ),
        tuple(
            (
                Cell(str(point.step)),
                Cell(str(point.components)),
                Cell(number(point.total_change)),
                Cell(str(point.errors)),
                Cell(str(point.total)),
                Cell(signed_percent(point.nll_increase)),
                Cell("chosen" if point.chosen else ""),
            )
            for point in report.path
        ),
    )


def scales_table(report: Report) -> Table:
    """Every component that the profile scales, with what the ranking says of it."""
    ranking = report.ranking
    ranked = {str(r.component): (place, r) for place, r in enumerate(ranking.components if ranking else (), start=1)}
    scales = [(f"L{head.layer}H{head.head}", head.scale) for head in report.profile.heads]
    scales += [(f"L{neuron.layer}N{neuron.neuron}", neuron.scale) for neuron in report.profile.neurons]
    rows = []
    # In the ranking's order, what it does not know at the end.
    for name, scale in sorted(scales, key=lambda item: ranked[item[0]][0] if item[0] in ranked else math.inf):
        row: tuple[Cell, ...] = (Cell(name), Cell(f"×{number(scale)}"))
        if ranking is not None:
            known = name in ranked
            row += _ranking_cells(ranking, *ranked[name]) if known else (Cell("–"),) * len(_ranking_columns(ranking))
        rows.append(row)
    columns = (Column("component", numeric=False), Column("scale"))
    return Table("Components that the profile scales", columns + _ranking_columns(ranking), tuple(rows))


def ranking_table(ranking: ReportedRanking) -> Table:
    """The best of the ranking, scaled or not."""
    ranked = ranking.components
    rows = [
        (
            Cell(str(r.component)),
            Cell("" if r.scale is None else f"×{number(r.scale)}"),
            *_ranking_cells(ranking, place, r),
        )
        for place, r in enumerate(ranked[:MOST_LISTED], start=1)
    ]
    more = f"; the first {MOST_LISTED} of {len(ranked)}" if len(ranked) > MOST_LISTED else ""
    columns = (Column("component", numeric=False), Column("scale"))
    return Table(f"Ranking on train, best first{more}", columns + _ranking_columns(ranking), tuple(rows))


def attention_table(patterns: Sequence[HeadAttention]) -> Table:
    """What each head looks at from the last token, where the answer is predicted."""
    rows = []
    for pattern in patterns:
        last = pattern.weights[-1]
        most = sorted(range(len(last)), key=lambda i: (-float(last[i]), i))[:_LOOKED_AT]
        cells = [Cell(f"{shortened(visible(pattern.tokens[i]), 16)} #{i}", percent(float(last[i])) + "%") for i in most]
        rows.append((Cell(str(pattern.component)), *cells, *[Cell("")] * (_LOOKED_AT - len(cells))))
    ordinals = ("most", "second", "third", "fourth")
    return Table(
        "What the last token attends to: token, its place in the prompt, and the share of attention",
        (Column("head", numeric=False), *(Column(name, numeric=False, code=True) for name in ordinals)),
        tuple(rows),
    )


def provenance_tables(report: Report) -> list[Table]:
    """Where the profile comes from, all but the long lists, which :func:`long_facts` gives."""
    profile, model = report.profile, report.profile.model
    facts: list[tuple[str, str]] = [
        ("profile", profile.name),
        ("content hash", content_hash(profile)),
        ("method", profile.method),
        ("changes", profile.summary),
    ]
    if report.strength != 1:
        facts.append(("measured at strength", number(report.strength)))
    origin = profile.provenance
    if origin is not None:
        facts += [
            ("task", origin.task),
            ("seed", str(origin.seed)),
            ("splits", ", ".join(f"{split} {size}" for split, size in origin.split_sizes.items())),
            ("fitted by", origin.command),
            ("tool version", origin.tool_version),
        ]
        for name, record in _records(report):
            facts += [(f"{name}: {key}", _in_short(value)) for key, value in record.items() if not _is_long(value)]
    shape = (
        f"{model.architecture}, {model.layers} layers of {model.heads} heads ({model.kv_heads} key-value heads of "
        f"{model.head_dim}) and {model.neurons} neurons, width {model.hidden_size}, {model.vocab_size} tokens"
    )
    fitted_on = [("name", model.id), ("architecture", shape), ("fingerprint", model.fingerprint)]
    return [_facts_table("The profile", facts), _facts_table("The model that it was fitted on", fitted_on)]


def long_facts(report: Report) -> list[tuple[str, str]]:
    """Return the long entries of the provenance as ``(title, JSON text)``."""
    return [
        (f"{name}: {key} ({len(value)} entries)", _as_lines(value))
        for name, record in _records(report)
        for key, value in record.items()
        if isinstance(value, list | dict) and _is_long(value)
    ]


def _records(report: Report) -> list[tuple[str, dict[str, JsonValue]]]:
    origin = report.profile.provenance
    if origin is None:
        return []
    records = {
        "grid": origin.grid,
        "chosen": origin.chosen,
        "dev": origin.dev,
        "test": origin.test,
        "side effects": origin.side_effects,
    }
    return [(name, dict(record)) for name, record in records.items()]


def _is_long(value: JsonValue) -> bool:
    return isinstance(value, list | dict) and (len(value) > _LONG or len(_in_short(value)) > 200)


def _in_short(value: JsonValue) -> str:
    if isinstance(value, dict) and not any(isinstance(inner, list | dict) for inner in value.values()):
        return ", ".join(f"{key} {_in_short(inner)}" for key, inner in value.items())
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _as_lines(value: list[JsonValue] | dict[str, JsonValue]) -> str:
    """One entry a line: shorter to read than JSON's own indentation."""
    if isinstance(value, list):
        return "[\n" + ",\n".join("  " + json.dumps(item, ensure_ascii=False) for item in value) + "\n]"
    entries = (
        f"  {json.dumps(key, ensure_ascii=False)}: {json.dumps(v, ensure_ascii=False)}" for key, v in value.items()
    )
    return "{\n" + ",\n".join(entries) + "\n}"


def _facts_table(caption: str, facts: Sequence[tuple[str, str]]) -> Table:
    rows = tuple((Cell(name), Cell(value)) for name, value in facts if value)
    return Table(caption, (Column("", numeric=False), Column("", numeric=False, code=True)), rows)


def _ranking_columns(ranking: ReportedRanking | None) -> tuple[Column, ...]:
    if ranking is None:
        return ()
    groups = ranking.groups if len(ranking.groups) <= MOST_COLUMNS else ()
    by_group = tuple(Column(group, code_heading=True) for group in groups)
    counted = (Column("sub-tasks"),) if ranking.groups else ()
    return (Column("rank"), *counted, *by_group, Column("precision"), Column("recall"), Column("F1"))


def _ranking_cells(ranking: ReportedRanking, place: int, ranked: RankedComponent) -> tuple[Cell, ...]:
    shares = [Cell(percent(share)) for share in ranked.accuracy] if len(ranking.groups) <= MOST_COLUMNS else []
    counted = [Cell(str(ranking.generalisability(ranked)))] if ranking.groups else []
    metrics = [Cell(f"{value:.2f}") for value in (ranked.precision, ranked.recall, ranked.f1)]
    return (Cell(str(place)), *counted, *shares, *metrics)


def _headline_row(group: str, correct: int, total: int, correct_after: int, total_after: int) -> tuple[Cell, ...]:
    changed = AccuracyChange(correct, correct_after, total)
    return (
        Cell(group),
        Cell(str(total)),
        _interval_cell(correct, total),
        _interval_cell(correct_after, total_after),
        Cell(changed.note or "0.0", "", changed.tone),
    )


def _change_cell(before: Accuracy, after: Accuracy, group: str | None = None) -> Cell:
    changed = accuracy_change(before, after, group)
    return Cell("–") if changed is None else changed.cell


def _share_cell(correct: int, total: int) -> Cell:
    return Cell(percent(correct / total) if total else "–")


def _interval_cell(correct: int, total: int) -> Cell:
    if not total:
        return Cell("–")
    low, high = Accuracy({"": (correct, total)}).interval()
    return Cell(percent(correct / total), f"[{percent(low / 100)}, {percent(high / 100)}]")


def _tone_if(worse: bool) -> Tone:
    return "worse" if worse else ""
