"""Short texts in place of those that side effects are measured on, which take most of the time of a small fit."""

import pytest

from steering_profiles.evaluation import corpora, humaneval

CHARACTERS = 100


def use_short_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure side effects on the beginning of each text, and not on HumanEval's solutions."""
    read = corpora._read

    def beginnings(*names: str, prefix: str) -> dict[str, str]:
        return {name: text[:CHARACTERS] for name, text in read(*names, prefix=prefix).items()}

    monkeypatch.setattr(corpora, "_read", beginnings)
    monkeypatch.setattr(humaneval, "find_problems", lambda: None)
