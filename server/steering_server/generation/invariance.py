"""Batch invariance: an engine's answers do not depend on its load."""

from dataclasses import dataclass


@dataclass(frozen=True)
class BatchInvariance:
    """Whether a sequence's tokens and log-probabilities are the same alone and in any batch, bit for bit."""

    holds: bool
    reason: str | None
    """Why it does not hold; None where it does."""
