"""What steering changes at each predicted token of a text, and the effects on the text that follow."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from steering_profiles.evaluation.bootstrap import mean_interval, relative_change_interval
from steering_profiles.evaluation.side_effects import TextEffect

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class TokenChanges:
    """The predicted tokens of one window without and with steering; each array is ``[predicted]``."""

    nll: tuple[Floats, Floats]
    """Negative log-likelihood of each token, in nats."""
    correct: tuple[Floats, Floats]
    """1 where the token is the likeliest at its position, else 0."""
    agrees: Floats
    """1 where the likeliest token is the same without and with steering, else 0."""
    divergence: Floats | None = None
    """``KL(without || with)`` of the predictions at each position, in nats; None if it was not measured."""


def text_effect(name: str, changes: Sequence[TokenChanges]) -> TextEffect:
    """Return the effect on the text ``name``, whose windows have these ``changes``.

    Raises:
        ValueError: there is no predicted token.
    """
    tokens = sum(len(one.agrees) for one in changes)
    if not tokens:
        raise ValueError(f"the text {name!r} has no token to predict")

    def mean(values: Sequence[Floats]) -> float:
        return sum(float(one.sum()) for one in values) / tokens

    (nll_before, nll_after), (right_before, right_after) = (
        ([pair[0] for pair in some], [pair[1] for pair in some])
        for some in ([one.nll for one in changes], [one.correct for one in changes])
    )
    divergence = [one.divergence for one in changes if one.divergence is not None]
    measured = len(divergence) == len(changes)
    return TextEffect(
        name=name,
        tokens=tokens,
        nll_before=mean(nll_before),
        nll_after=mean(nll_after),
        agreement=mean([one.agrees for one in changes]),
        interval=relative_change_interval(nll_before, nll_after),
        correct=(mean(right_before), mean(right_after)),
        correct_interval=mean_interval(
            [after - before for before, after in zip(right_before, right_after, strict=True)]
        ),
        divergence=mean(divergence) if measured else None,
        divergence_interval=mean_interval(divergence) if measured else None,
    )
