"""Tables of the components that a profile scales, of their ranking and of attention patterns."""

import math
from collections.abc import Sequence

from steering_profiles.reports.attention import HeadAttention
from steering_profiles.reports.report import RankedComponent, Report, ReportedRanking
from steering_profiles.reports.tables import MOST_COLUMNS, Cell, Column, Table
from steering_profiles.reports.text import number, percent, shortened, visible

MOST_LISTED = 200
"""Maximum number of components in the table of the ranking."""


_LOOKED_AT = 4
"""Number of tokens with the largest attention weights that a table shows."""


def scales_table(report: Report) -> Table:
    """Return every component that the profile scales, with its figures in the ranking.

    Of a profile with several conditions there is a row for each condition under which a component is scaled.
    """
    ranking = report.ranking
    ranked = {str(r.component): (place, r) for place, r in enumerate(ranking.components if ranking else (), start=1)}
    parts = report.profile.split()
    scales = [(s.component, s.scale, part.when) for part in parts for s in part.scales]
    rows = []
    # In the order of the ranking, components without a rank last.
    for name, scale, when in sorted(scales, key=lambda item: ranked[item[0]][0] if item[0] in ranked else math.inf):
        row: tuple[Cell, ...] = (Cell(name), Cell(f"×{number(scale)}"))
        if len(parts) > 1:
            row += (Cell("everywhere" if when is None else str(when)),)
        if ranking is not None:
            known = name in ranked
            row += _ranking_cells(ranking, *ranked[name]) if known else (Cell("–"),) * len(_ranking_columns(ranking))
        rows.append(row)
    where = (Column("where", numeric=False, code=True),) if len(parts) > 1 else ()
    columns = (Column("component", numeric=False), Column("scale"), *where)
    return Table("Components that the profile scales", columns + _ranking_columns(ranking), tuple(rows))


def ranking_table(ranking: ReportedRanking) -> Table:
    """Return the best components of the ranking, scaled or not."""
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
    """Return the tokens to which each head attends most from the last token, where the answer is predicted."""
    rows = []
    for pattern in patterns:
        last = pattern.weights[-1]
        most = sorted(range(len(last)), key=lambda i: (-float(last[i]), i))[:_LOOKED_AT]
        cells = [Cell(f"{shortened(visible(pattern.tokens[i]), 16)} #{i}", percent(float(last[i])) + "%") for i in most]
        rows.append((Cell(str(pattern.component)), *cells, *[Cell("")] * (_LOOKED_AT - len(cells))))
    ordinals = ("most", "second", "third", "fourth")
    return Table(
        "Attention from the last token: token, its position in the prompt, and its attention weight",
        (Column("head", numeric=False), *(Column(name, numeric=False, code=True) for name in ordinals)),
        tuple(rows),
    )


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
