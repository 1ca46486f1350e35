"""What a profile changes besides the task it was made for: how well the model still predicts ordinary text."""

from dataclasses import dataclass

from pydantic import JsonValue


@dataclass(frozen=True)
class TextEffect:
    """How a profile changes the prediction of one text."""

    name: str
    """Such as ``prose``, ``code`` or ``HumanEval solutions``."""
    tokens: int
    """How many tokens were predicted."""
    nll_before: float
    """Mean negative log-likelihood of a token without the profile, in nats."""
    nll_after: float
    agreement: float
    """Share of positions at which the likeliest next token is the same with and without it, 0..1."""

    @property
    def nll_increase(self) -> float:
        """By how much the NLL rose, as a share of what it was: 0.01 is one percent worse."""
        return self.nll_after / self.nll_before - 1


@dataclass(frozen=True)
class SideEffects:
    """How a profile changes the prediction of texts that have nothing to do with its task."""

    texts: tuple[TextEffect, ...]

    @property
    def worst(self) -> TextEffect:
        """The text whose prediction suffered most."""
        return max(self.texts, key=lambda text: text.nll_increase)

    def record(self) -> dict[str, JsonValue]:
        """Return the figures as they are kept in a profile's provenance."""
        return {
            text.name: {
                "tokens": text.tokens,
                "nll_before": round(text.nll_before, 4),
                "nll_after": round(text.nll_after, 4),
                "agreement": round(text.agreement, 4),
            }
            for text in self.texts
        }
