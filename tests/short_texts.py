"""Short texts in place of those that side effects are measured on, which take most of the time of a small fit."""

import pytest

from steering_profiles.evaluation import corpora, held_out, humaneval
from steering_profiles.evaluation.minimal_pairs import minimal_pairs

CHARACTERS = 100
PAIRS = 2


def use_short_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure side effects on the beginning of each text, on few minimal pairs, and not on HumanEval's solutions."""
    read = corpora._read

    def beginnings(*names: str, prefix: str) -> dict[str, str]:
        return {name: text[:CHARACTERS] for name, text in read(*names, prefix=prefix).items()}

    monkeypatch.setattr(corpora, "_read", beginnings)
    few = {name: pairs[:PAIRS] for name, pairs in minimal_pairs().items()}
    monkeypatch.setattr(held_out, "minimal_pairs", lambda: few)
    monkeypatch.setattr(humaneval, "find_problems", lambda: None)
