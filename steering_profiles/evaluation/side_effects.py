"""Side effects of a profile: changes in how well the model predicts text that is unrelated to the profile's task."""

from dataclasses import dataclass

from pydantic import JsonValue


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
    interval: tuple[float, float] | None = None
    """95% interval of :attr:`nll_increase` (:mod:`.bootstrap`); None for a text that is too short for one."""

    @property
    def nll_increase(self) -> float:
        """Relative increase of the NLL: 0.01 is one percent worse."""
        return self.nll_after / self.nll_before - 1


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
        return {
            text.name: {
                "tokens": text.tokens,
                "nll_before": round(text.nll_before, 4),
                "nll_after": round(text.nll_after, 4),
                "agreement": round(text.agreement, 4),
            }
            | ({} if text.interval is None else {"interval": [round(bound, 5) for bound in text.interval]})
            for text in self.texts
        }
