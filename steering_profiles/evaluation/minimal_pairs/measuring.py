"""The effect of steering on minimal pairs: how often the good sentence is likelier, and by how much."""

from collections.abc import Mapping, Sequence

import numpy as np

from steering_profiles.evaluation.bootstrap import mean_interval
from steering_profiles.evaluation.minimal_pairs.pairs import Pair
from steering_profiles.evaluation.side_effects import PairsEffect, PairsEffects
from steering_profiles.evaluation.token_changes import TokenChanges
from steering_profiles.evaluation.windows import Window, common_prefix, fitted_window
from steering_profiles.models import LoadedModel
from steering_profiles.tokenization import encode_prompt


def pair_windows(loaded: LoadedModel, pairs: Sequence[Pair]) -> tuple[Window, ...]:
    """Return two windows for each of ``pairs``, the good sentence's before the bad one's.

    The tokens that both begin with are given: they are as likely in both, so they change no comparison.
    """
    windows: list[Window] = []
    for pair in pairs:
        good, bad = (encode_prompt(loaded.tokenizer, sentence) for sentence in (pair.good, pair.bad))
        shared = max(1, common_prefix(good, bad))
        windows += [fitted_window(loaded, sentence, shared) for sentence in (good, bad)]
    return tuple(windows)


def pairs_effects(changes: Mapping[str, Sequence[TokenChanges]]) -> PairsEffects:
    """Return the effects on each phenomenon and on all pairs, with the changes of each one's :func:`pair_windows`."""
    return PairsEffects(
        _effect("all phenomena", [one for of_windows in changes.values() for one in of_windows]),
        tuple(_effect(name, of_windows) for name, of_windows in changes.items()),
    )


def _effect(name: str, changes: Sequence[TokenChanges]) -> PairsEffect:
    nll = np.array([[float(arm.sum()) for arm in one.nll] for one in changes])  # [2 * pairs, 2]
    margins = nll[1::2] - nll[::2]  # of the log-probability of the good sentence, without and with: [pairs, 2]
    right = (margins > 0).astype(np.float64)
    (before, after), (margin_before, margin_after) = right.mean(axis=0).tolist(), margins.mean(axis=0).tolist()
    return PairsEffect(
        name=name,
        pairs=len(margins),
        correct=(before, after),
        correct_interval=mean_interval([*(right[:, 1:] - right[:, :1])]),
        margin=(margin_before, margin_after),
        margin_interval=mean_interval([*(margins[:, 1:] - margins[:, :1])]),
    )
