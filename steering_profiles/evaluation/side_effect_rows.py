"""Side effects as the rows of one table, those that are worse first."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from steering_profiles.evaluation.side_effects import Interval, LastWordsEffect, PairsEffects, SideEffects, TextEffect

Verdict = Literal["worse", "better", ""]


@dataclass(frozen=True)
class SideEffectRow:
    """One figure without and with a profile."""

    measure: str
    """What is measured, such as ``NLL per token``."""
    of: str
    """The text or the phenomenon."""
    count: int
    """Number of what is counted."""
    counted: str
    """What is counted: ``tokens``, ``words`` or ``pairs``."""
    unit: Literal["nats", "share"]
    """Unit of both figures: nats, or a share 0..1."""
    before: float | None
    """The figure without the profile; None for a difference between the predictions without and with it."""
    after: float
    change: float | None
    """The change, as a part of 1: relative for an NLL, in nats for a margin, else the difference of the shares."""
    relative: bool
    """Whether :attr:`change` is relative."""
    interval: Interval | None
    """95% interval of the change, or of :attr:`after` where there is none."""
    good: Literal[-1, 0, 1]
    """The sign of a change for the better; 0 if there is no better."""

    @property
    def harm(self) -> float:
        """The change, with the sign with which positive is worse."""
        return 0.0 if self.change is None else -self.good * self.change

    @property
    def verdict(self) -> Verdict:
        """Whether the change can be told from 0: its whole interval is on one side."""
        if self.interval is None or not self.good:
            return ""
        low, high = sorted(-self.good * bound for bound in self.interval)
        return "worse" if low > 0 else "better" if high < 0 else ""

    def shown(self, value: float | None) -> str:
        """Return one of the two figures as text: ``2.1034``, ``60.0%``; empty for None."""
        if value is None:
            return ""
        return f"{value:.4f}" if self.unit == "nats" else f"{100 * value:.1f}%"

    @property
    def change_shown(self) -> str:
        """The change as text: ``+0.21%``, ``-1.50 points``, ``-0.0213``; empty if there is none."""
        return "" if self.change is None else self._difference(self.change) + self._points

    @property
    def interval_shown(self) -> str:
        """The interval as text: ``-0.02%..+0.08%``; empty if there is none."""
        if self.interval is None:
            return ""
        show = self.shown if self.change is None else self._difference
        return "..".join(show(bound) for bound in self.interval) + self._points

    @property
    def _points(self) -> str:
        return " points" if self.unit == "share" and self.change is not None else ""

    def _difference(self, value: float) -> str:
        if self.relative:
            return f"{100 * value:+.2f}%"
        return f"{100 * value:+.2f}" if self.unit == "share" else f"{value:+.4f}"


def side_effect_rows(effects: SideEffects) -> list[SideEffectRow]:
    """Return the rows of ``effects``.

    What is worse by more than its interval comes first, then what cannot be told from no change, then what is better,
    the largest harm of each first; at the end what has no better and worse.
    """
    rows = [row for text in effects.texts for row in _text_rows(text)]
    if effects.last_words is not None:
        rows += _last_word_rows(effects.last_words)
    if effects.minimal_pairs is not None:
        rows += _pairs_rows(effects.minimal_pairs)
    order = {"worse": 0, "": 1, "better": 2}
    return sorted(rows, key=lambda row: (row.good == 0, order[row.verdict], -row.harm))


def _text_rows(text: TextEffect) -> Iterator[SideEffectRow]:
    counted = (text.name, text.tokens, "tokens")
    yield SideEffectRow(
        *("NLL per token", *counted, "nats", text.nll_before, text.nll_after, text.nll_increase),
        relative=True,
        interval=text.interval,
        good=-1,
    )
    if text.correct is not None:
        yield _share_row("next token right", *counted, text.correct, text.correct_interval)
    if text.divergence is not None:
        yield SideEffectRow(
            *("KL divergence per token", *counted, "nats", None, text.divergence, None),
            relative=False,
            interval=text.divergence_interval,
            good=0,
        )
    yield SideEffectRow(
        *("same likeliest next token", *counted, "share", None, text.agreement, None),
        relative=False,
        interval=None,
        good=0,
    )


def _last_word_rows(words: LastWordsEffect) -> Iterator[SideEffectRow]:
    counted = ("prose", words.words, "words")
    yield _share_row("last word of a sentence right", *counted, words.correct, words.correct_interval)
    yield SideEffectRow(
        *("NLL per last word", *counted, "nats", *words.nll, words.nll[1] / words.nll[0] - 1),
        relative=True,
        interval=words.nll_interval,
        good=-1,
    )


def _pairs_rows(effects: PairsEffects) -> Iterator[SideEffectRow]:
    for one in (effects.pooled, *effects.phenomena):
        yield _share_row("good sentence likelier", one.name, one.pairs, "pairs", one.correct, one.correct_interval)
    pooled = effects.pooled
    yield SideEffectRow(
        *("good sentence likelier by", pooled.name, pooled.pairs, "pairs", "nats", *pooled.margin),
        pooled.margin[1] - pooled.margin[0],
        relative=False,
        interval=pooled.margin_interval,
        good=1,
    )


def _share_row(
    measure: str, of: str, count: int, counted: str, shares: tuple[float, float], interval: Interval | None
) -> SideEffectRow:
    before, after = shares
    return SideEffectRow(
        *(measure, of, count, counted, "share", before, after, after - before),
        relative=False,
        interval=interval,
        good=1,
    )
