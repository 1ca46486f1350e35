"""Side effects of a profile: changes in how well the model predicts text that is unrelated to the profile's task."""

from dataclasses import dataclass

from pydantic import JsonValue

Interval = tuple[float, float]
"""Lower and upper end."""


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
            figures |= {"correct_before": round(self.correct[0], 5), "correct_after": round(self.correct[1], 5)}
        if self.divergence is not None:
            figures["divergence"] = round(self.divergence, 6)
        intervals = {
            "interval": self.interval,
            "correct_interval": self.correct_interval,
            "divergence_interval": self.divergence_interval,
        }
        return figures | {
            name: [round(bound, 6) for bound in interval]
            for name, interval in intervals.items()
            if interval is not None
        }


@dataclass(frozen=True)
class SideEffects:
    """Changes in the prediction of several texts."""

    texts: tuple[TextEffect, ...]

    @property
    def worst(self) -> TextEffect:
        """The text with the largest NLL increase."""
        return max(self.texts, key=lambda text: text.nll_increase)

    def record(self) -> dict[str, JsonValue]:
        """Return the figures as a profile's provenance records them."""
        return {text.name: text.record() for text in self.texts}
