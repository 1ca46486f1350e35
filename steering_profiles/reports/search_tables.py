"""Tables of the points of a search."""

from steering_profiles.reports.report import Report
from steering_profiles.reports.tables import Cell, Column, Table
from steering_profiles.reports.text import number, percent, signed_percent


def grid_table(report: Report) -> Table:
    """Return the dev accuracy at every point of the (k, alpha) grid."""
    measured = {(m.point.k, m.point.alpha): m.accuracy for m in report.grid}
    alphas = sorted({alpha for k, alpha in measured if k}) or sorted({alpha for _, alpha in measured})
    most = max(accuracy.total for accuracy in measured.values())
    rows = []
    for k in sorted({k for k, _ in measured}):
        row = [Cell(str(k) if k else "0 (unsteered)")]
        for alpha in alphas:
            accuracy = measured.get((k, alpha)) or (measured.get((0, 1.0)) if k == 0 else None)
            if accuracy is None or not accuracy.total:
                row.append(Cell("–"))
            else:
                note = "" if accuracy.total == most else f"of {accuracy.total}"
                row.append(Cell(percent(accuracy.correct / accuracy.total), note))
        rows.append(tuple(row))
    return Table(
        f"Dev accuracy, % of {most} prompts. Points that could no longer be chosen were measured on fewer, as noted",
        (Column("components"), *(Column(f"×{number(alpha)}") for alpha in alphas)),
        tuple(rows),
    )


def path_table(report: Report) -> Table:
    """Return the measured steps of a stepwise search, those of its rounds one after the other."""
    several = len({point.round for point in report.path}) > 1
    return Table(
        "Measured steps of the search",
        (
            *((Column("round"),) if several else ()),
            Column("step"),
            Column("components"),
            Column("total change (L1)"),
            Column("validation errors"),
            Column("of"),
            Column("NLL increase"),
            Column("", numeric=False),
        ),
        tuple(
            (
                *((Cell(str(point.round)),) if several else ()),
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
