"""The benchmark of greedy choices compares the same positions."""

import pytest

from benchmarks import agreement
from steering_profiles.models import LoadedModel


def test_the_engine_and_transformers_choose_nearly_the_same_tokens_at_the_same_positions(
    embedded: LoadedModel, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(agreement, "POSITIONS", 2 * agreement.WINDOW)
    ours, theirs = agreement.by_engine(embedded), agreement.by_transformers(embedded)
    assert len(ours) == len(theirs) == 2 * agreement.WINDOW
    assert sum(one == other for one, other in zip(ours, theirs, strict=True)) > 0.95 * len(ours)
