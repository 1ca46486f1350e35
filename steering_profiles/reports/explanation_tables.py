"""Tables of a report on a layer, shown on the page, in Markdown and on the terminal."""

from collections.abc import Iterable

from steering_profiles.fitting import Explanation
from steering_profiles.fitting.argument_heads import ArgumentHead, ArgumentHeads
from steering_profiles.reports.tables import Cell, Column, Table
from steering_profiles.reports.text import minus, percent, visible

_IN_WORDS = {"train": "train (in sample)"}


def coefficients_table(explanation: Explanation) -> Table:
    """Return the coefficient of each head and of the residual stream, and its contribution to the answer's logit."""
    fitted, train = explanation.decomposition, explanation.answer_logits["train"]
    parts = [
        *(
            (f"L{explanation.layer}H{head}", coefficient, logit)
            for head, (coefficient, logit) in enumerate(zip(fitted.heads.tolist(), train.heads, strict=True))
        ),
        ("residual stream", fitted.residual_stream, train.residual_stream),
    ]
    return Table(
        "Coefficients of the MLP's inputs (above 0: amplified, below 0: weakened), and contributions to the answer's "
        "logit on train",
        (Column("input", numeric=False), Column("coefficient"), Column("logit of the answer")),
        tuple((Cell(name), Cell(signed(weight, 3)), Cell(signed(logit, 2))) for name, weight, logit in parts),
    )


def quality_table(explanation: Explanation) -> Table:
    """Return R² of the fit on each split."""
    return Table(
        "Share of the variance of the MLP's output that the fit explains",
        (Column("split", numeric=False), Column("prompts"), Column("R²")),
        tuple(
            (Cell(_IN_WORDS.get(split, split)), Cell(str(explanation.prompts[split])), Cell(signed(value, 4)))
            for split, value in explanation.r2.items()
        ),
    )


def tokens_table(explanation: Explanation) -> Table:
    """Return the tokens that the intercept promotes and suppresses, by the logit lens."""
    columns = ("promoted", "logit", "suppressed", "logit")
    return Table(
        "Tokens that the intercept promotes and suppresses most, by the logit lens (before the final norm's scale)",
        tuple(Column(heading, numeric=heading == "logit", code=heading != "logit") for heading in columns),
        tuple(
            (Cell(visible(up.text)), Cell(signed(up.logit, 2)), Cell(visible(down.text)), Cell(signed(down.logit, 2)))
            for up, down in zip(explanation.top, explanation.bottom, strict=True)
        ),
    )


def answer_table(explanation: Explanation) -> Table:
    """Return the contribution of each part of the MLP's output to the correct answer's logit, per split."""
    splits = explanation.answer_logits
    rows = [
        (Cell(name), *(Cell(signed(logits.parts[name], 2), _share(logits.shares[name])) for logits in splits.values()))
        for name in splits["train"].parts
    ]
    rows.append((Cell("whole MLP"), *(Cell(signed(logits.total, 2)) for logits in splits.values())))
    return Table(
        "Contribution of the MLP to the answer's logit, and each part's share of the sum of their absolute values",
        (Column("part", numeric=False), *(Column(split) for split in splits)),
        tuple(rows),
    )


def argument_table(found: ArgumentHeads, most: int) -> Table:
    """Return the ``most`` heads whose patching lowers P(answer) most."""
    shown = found.heads[:most]
    chosen = (
        "that the model answers correctly" if found.only_correct else "(too few have correct answers to use those only)"
    )
    return Table(
        f"Heads with the largest effect of {len(found.heads)}, by patching on {found.pairs} prompts {chosen}",
        (Column("head", numeric=False), Column("decrease of P(answer), %"), Column("attention to the topic, %")),
        tuple(_argument_cells(shown)),
    )


def signed(value: float, digits: int) -> str:
    """Return ``value`` with its sign and ``digits`` decimals: ``+0.125``."""
    return minus(f"{value:+.{digits}f}")


def _argument_cells(heads: Iterable[ArgumentHead]) -> Iterable[tuple[Cell, ...]]:
    for head in heads:
        yield Cell(str(head.component)), Cell(minus(percent(head.effect))), Cell(percent(head.attention))


def _share(share: float) -> str:
    return minus(f"{100 * share:+.0f}%")
