"""Side effects of a profile: changes in how well the model predicts text that is unrelated to the profile's task."""

from dataclasses import dataclass

from pydantic import JsonValue

Interval = tuple[float, float]
"""Lower and upper end."""
LAST_WORDS = "last words"
"""Kind, and name in a record, of the effect on the last words of sentences of prose."""
MINIMAL_PAIRS = "minimal pairs"
"""The same of the effects on minimal pairs of grammar."""


@dataclass(frozen=True)
class TextEffect:
    """Change in the prediction of one text."""

    name: str
    """Name of the text, such as ``prose``, ``code`` or ``HumanEval solutions``."""
    tokens: int
    """Number of predicted tokens."""
    nll_before: float
    """Mean negative log-likelihood per token without the profile, in nats."""
    nll_after: float
    """The same with the profile."""
    agreement: float
    """Share of positions at which the likeliest next token is the same with and without the profile, 0..1."""
    interval: Interval | None = None
    """95% interval of :attr:`nll_increase` (:mod:`.bootstrap`); None for a text that is too short for one."""
    correct: tuple[float, float] | None = None
    """Share of the tokens that were the likeliest next token, without and with the profile, 0..1; None in records of
    fits before it was measured."""
    correct_interval: Interval | None = None
    """95% interval of the second less the first of :attr:`correct`."""
    divergence: float | None = None
    """Mean Kullback-Leibler divergence of the predictions with the profile from those without it,
    ``KL(without || with)``, in nats per token; None if it was not measured."""
    divergence_interval: Interval | None = None
    """95% interval of :attr:`divergence`."""

    @property
    def nll_increase(self) -> float:
        """Relative increase of the NLL: 0.01 is one percent worse."""
        return self.nll_after / self.nll_before - 1

    def record(self) -> dict[str, JsonValue]:
        """Return the figures; those that were not measured are left out."""
        figures: dict[str, JsonValue] = {
            "tokens": self.tokens,
            "nll_before": round(self.nll_before, 4),
            "nll_after": round(self.nll_after, 4),
            "agreement": round(self.agreement, 4),
        }
        if self.correct is not None:
            figures |= _shares(self.correct)
        if self.divergence is not None:
            figures["divergence"] = round(self.divergence, 6)
        return figures | _intervals(
            {
                "interval": self.interval,
                "correct_interval": self.correct_interval,
                "divergence_interval": self.divergence_interval,
            }
        )


@dataclass(frozen=True)
class LastWordsEffect:
    """Change in the prediction of the last words of sentences of prose, each predicted whole (:mod:`.last_words`)."""

    words: int
    """Number of words."""
    correct: tuple[float, float]
    """Share of the words of which every token was the likeliest, without and with the profile, 0..1."""
    correct_interval: Interval | None
    """95% interval of the second less the first; None for fewer than eight words."""
    nll: tuple[float, float]
    """Mean negative log-likelihood per word, without and with the profile, in nats."""
    nll_interval: Interval | None
    """95% interval of its relative change."""

    def record(self) -> dict[str, JsonValue]:
        """Return the figures."""
        return {
            "kind": LAST_WORDS,
            "words": self.words,
            "nll_before": round(self.nll[0], 4),
            "nll_after": round(self.nll[1], 4),
            **_shares(self.correct),
            **_intervals({"interval": self.nll_interval, "correct_interval": self.correct_interval}),
        }


@dataclass(frozen=True)
class PairsEffect:
    """Change in the choice between the good and the bad sentence of minimal pairs (:mod:`.minimal_pairs`)."""

    name: str
    """What the pairs are about, such as ``case of pronouns``."""
    pairs: int
    """Number of pairs."""
    correct: tuple[float, float]
    """Share of the pairs of which the good sentence is likelier, without and with the profile, 0..1."""
    correct_interval: Interval | None
    """95% interval of the second less the first. It is 0 to 0 where no choice changes, which does not show that none
    would in other pairs: of that the :attr:`margin` shows more."""
    margin: tuple[float, float]
    """Mean of the log-probability of the good sentence less that of the bad one, without and with, in nats."""
    margin_interval: Interval | None
    """95% interval of the second less the first."""

    def record(self) -> dict[str, JsonValue]:
        """Return the figures."""
        return {
            "pairs": self.pairs,
            **_shares(self.correct),
            "margin_before": round(self.margin[0], 4),
            "margin_after": round(self.margin[1], 4),
            **_intervals({"correct_interval": self.correct_interval, "margin_interval": self.margin_interval}),
        }


@dataclass(frozen=True)
class PairsEffects:
    """Effects on minimal pairs: on all of them, and on those of each phenomenon."""

    pooled: PairsEffect
    phenomena: tuple[PairsEffect, ...]

    def record(self) -> dict[str, JsonValue]:
        """Return the figures."""
        return {
            "kind": MINIMAL_PAIRS,
            **self.pooled.record(),
            "phenomena": {phenomenon.name: phenomenon.record() for phenomenon in self.phenomena},
        }


@dataclass(frozen=True)
class SideEffects:
    """Changes in the prediction of text that has nothing to do with the profile's task."""

    texts: tuple[TextEffect, ...]
    last_words: LastWordsEffect | None = None
    """None if they were not measured."""
    minimal_pairs: PairsEffects | None = None
    """None if they were not measured."""

    @property
    def worst(self) -> TextEffect:
        """The text with the largest NLL increase."""
        return max(self.texts, key=lambda text: text.nll_increase)

    @property
    def shares(self) -> dict[str, tuple[float, float, Interval | None]]:
        """Shares of last words and minimal pairs that are right, without and with, and the interval of the change."""
        pairs = self.minimal_pairs
        found: dict[str, LastWordsEffect | PairsEffect] = {}
        if self.last_words is not None:
            found[LAST_WORDS] = self.last_words
        if pairs is not None:
            found[MINIMAL_PAIRS] = pairs.pooled
            found |= {f"{MINIMAL_PAIRS}, {phenomenon.name}": phenomenon for phenomenon in pairs.phenomena}
        return {name: (*one.correct, one.correct_interval) for name, one in found.items()}

    def record(self) -> dict[str, JsonValue]:
        """Return the figures as a profile's provenance records them, by what was measured.

        What has no ``kind`` is a text: records of earlier versions have texts only.
        """
        figures: dict[str, JsonValue] = {text.name: text.record() for text in self.texts}
        if self.last_words is not None:
            figures[LAST_WORDS] = self.last_words.record()
        if self.minimal_pairs is not None:
            figures[MINIMAL_PAIRS] = self.minimal_pairs.record()
        return figures


def _shares(correct: tuple[float, float]) -> dict[str, JsonValue]:
    return {"correct_before": round(correct[0], 5), "correct_after": round(correct[1], 5)}


def _intervals(intervals: dict[str, Interval | None]) -> dict[str, JsonValue]:
    return {name: [round(bound, 6) for bound in one] for name, one in intervals.items() if one is not None}
