"""The tables of an explanation: the terminal, the page and the Markdown file show the same cells."""

from collections.abc import Iterable

from steering_profiles.fitting import Explanation
from steering_profiles.fitting.argument_heads import ArgumentHead, ArgumentHeads
from steering_profiles.reports.tables import Cell, Column, Table
from steering_profiles.reports.text import percent, visible

_IN_WORDS = {"train": "train (in sample)"}


def coefficients_table(explanation: Explanation) -> Table:
    """What the MLP makes of each head and of the residual stream, and what that adds to the answer's logit."""
    fitted, train = explanation.decomposition, explanation.answer_logits["train"]
    parts = [
        *(
            (f"L{explanation.layer}H{head}", coefficient, logit)
            for head, (coefficient, logit) in enumerate(zip(fitted.heads.tolist(), train.heads, strict=True))
        ),
        ("residual stream", fitted.residual_stream, train.residual_stream),
    ]
    return Table(
        "What the MLP makes of its inputs: amplified above 0, erased below",
        (Column("input", numeric=False), Column("coefficient"), Column("answer's logit, train")),
        tuple((Cell(name), Cell(signed(weight, 3)), Cell(signed(logit, 2))) for name, weight, logit in parts),
    )


def quality_table(explanation: Explanation) -> Table:
    """How much of the MLP's output the fit explains."""
    return Table(
        "Share of the variance of the MLP's output that the fit explains",
        (Column("prompts", numeric=False), Column("number"), Column("R²")),
        tuple(
            (Cell(_IN_WORDS.get(split, split)), Cell(str(explanation.prompts[split])), Cell(signed(value, 4)))
            for split, value in explanation.r2.items()
        ),
    )


def tokens_table(explanation: Explanation) -> Table:
    """What the intercept says through the logit lens."""
    columns = ("pushes to", "logit", "pushes away from", "logit")
    return Table(
        "The intercept through the logit lens (before the final norm's scale)",
        tuple(Column(heading, numeric=heading == "logit", code=heading != "logit") for heading in columns),
        tuple(
            (Cell(visible(up.text)), Cell(signed(up.logit, 2)), Cell(visible(down.text)), Cell(signed(down.logit, 2)))
            for up, down in zip(explanation.top, explanation.bottom, strict=True)
        ),
    )


def answer_table(explanation: Explanation) -> Table:
    """What the parts of the MLP's output add to the right answer's logit, per split."""
    splits = explanation.answer_logits
    rows = [
        (Cell(name), *(Cell(signed(logits.parts[name], 2), _share(logits.shares[name])) for logits in splits.values()))
        for name in splits["train"].parts
    ]
    rows.append((Cell("the whole MLP"), *(Cell(signed(logits.total, 2)) for logits in splits.values())))
    return Table(
        "What the MLP adds to the answer's logit, and each part's share of what all of them move",
        (Column("part", numeric=False), *(Column(split) for split in splits)),
        tuple(rows),
    )


def argument_table(found: ArgumentHeads, most: int) -> Table:
    """The heads whose patch lowers P(answer) most."""
    shown = found.heads[:most]
    right = "that the model answers right" if found.only_right else "right or wrong, as few are answered right"
    return Table(
        f"Argument-passing heads of all {len(found.heads)}, by patching {found.pairs} prompts {right}",
        (Column("head", numeric=False), Column("fall of P(answer), %"), Column("attention to the topic, %")),
        tuple(_argument_cells(shown)),
    )


def signed(value: float, digits: int) -> str:
    """Return ``value`` with its sign and so many digits after the point: ``+0.125``."""
    return _minus(f"{value:+.{digits}f}")


def _argument_cells(heads: Iterable[ArgumentHead]) -> Iterable[tuple[Cell, ...]]:
    for head in heads:
        yield Cell(str(head.component)), Cell(_minus(percent(head.effect))), Cell(percent(head.attention))


def _share(share: float) -> str:
    return _minus(f"{100 * share:+.0f}%")


def _minus(text: str) -> str:
    return text.replace("-", "−")
