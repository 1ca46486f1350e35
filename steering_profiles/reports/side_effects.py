"""Side effects in a report: what is worse, in sentences and in one table."""

from collections.abc import Iterator

from steering_profiles.evaluation.side_effect_rows import SideEffectRow, side_effect_rows
from steering_profiles.evaluation.side_effects import SideEffects
from steering_profiles.reports.tables import Cell, Column, Table, Tone
from steering_profiles.reports.text import minus, named, signed_percent
from steering_profiles.side_effect_warnings import NLL_LIMIT, SHARE_LIMIT, exceeds_limit, shares_over_limit

_CAPTION = (
    "Effects on what has nothing to do with the task: first what is worse by more than its 95% interval, then what "
    "cannot be told from no change, then what is better, the largest loss of each first. Negative log-likelihood (NLL) "
    "in nats and its relative change; the share of tokens that are the likeliest next token; the share of sentences of "
    "prose whose last word would be written, whole, by greedy decoding; the share of minimal pairs of grammar whose "
    "good sentence is likelier than the bad one, by phenomenon, and by how many nats on average. At the end the KL "
    "divergence of the predictions with the profile from those without it, and the share of positions at which the "
    "likeliest next token stays the same"
)


def limit_sentences(effects: SideEffects) -> Iterator[tuple[str, Tone]]:
    """Yield which side effects are above the limits, or how large the largest NLL increase is."""
    if effects.texts:
        above = [text for text in effects.texts if exceeds_limit(text.nll_increase)]
        if above:
            increases = [f"{text.name} {signed_percent(text.nll_increase)}" for text in above]
            yield f"Warning: the NLL of other text increases by more than {NLL_LIMIT:.0%}: {named(increases)}.", "worse"
        else:
            worst = effects.worst
            increase = signed_percent(worst.nll_increase)
            yield (
                f"The largest NLL increase of other text is {increase} ({worst.name}), within the limit of "
                f"{NLL_LIMIT:.0%}.",
                "",
            )
    lost = shares_over_limit(effects.shares)
    if lost:
        yield minus(f"Warning: less is right, by more than {100 * SHARE_LIMIT:g} point: {named(lost)}."), "worse"


def everywhere_sentence(everywhere: SideEffects) -> tuple[str, Tone]:
    """Return a sentence on a profile for the last token of the prompt, given its side effects at all positions."""
    worst = everywhere.worst
    return (
        "The profile changes one prediction of a request, the first token of the completion, so the figures of whole "
        "texts hardly show it. At every position the same settings would change the NLL by "
        f"{signed_percent(worst.nll_increase)} ({worst.name}): by so much the first token of such a completion.",
        "worse" if exceeds_limit(worst.nll_increase) else "",
    )


def side_effects_sentences(effects: SideEffects) -> Iterator[str]:
    """Yield how many figures are worse by more than their interval, and how many would be so by chance."""
    rows = [row for row in side_effect_rows(effects) if row.good and row.interval is not None]
    if not rows:
        return
    worse, better = (sum(row.verdict == verdict for row in rows) for verdict in ("worse", "better"))
    yield (
        f"{worse} of {len(rows)} figures with a 95% interval are worse by more than it, {better} better. One interval "
        "in 40 shows harm by chance where there is none on average."
    )


def side_effects_table(effects: SideEffects) -> Table:
    """Return the table of all side effects, what is worse first."""
    return Table(
        _CAPTION,
        (
            Column("figure", numeric=False),
            Column("of", numeric=False),
            Column("count"),
            Column("without"),
            Column("with"),
            Column("change"),
            Column("95% interval"),
        ),
        tuple(_cells(row) for row in side_effect_rows(effects)),
    )


def _cells(row: SideEffectRow) -> tuple[Cell, ...]:
    above = row.relative and row.counted == "tokens" and row.change is not None and exceeds_limit(row.change)
    notes = ("worse" if row.verdict == "worse" else "", f"above {NLL_LIMIT:.0%}" if above else "")
    return (
        Cell(row.measure),
        Cell(row.of),
        Cell(f"{row.count} {row.counted}"),
        Cell(row.shown(row.before) or "–"),
        Cell(row.shown(row.after)),
        Cell(minus(row.change_shown) or "–", ", ".join(filter(None, notes)), "worse" if above else row.verdict),
        Cell(minus(row.interval_shown) or "–"),
    )
