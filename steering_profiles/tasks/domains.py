"""The domains of factual recall: what is known of each, and the sentences that ask for it.

One JSON file each, in ``facts/``: ``facts`` maps a topic, written as in the middle of a sentence, to its answer;
``templates`` are texts with one ``{topic}`` that the answer follows after a space.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent / "facts"
DOMAINS = ("capitals", "languages", "currencies", "continents", "companies", "sports")
"""Four of geography, and two outside it."""
TOPIC = "{topic}"
"""Stands in a template for the thing asked about."""


@dataclass(frozen=True)
class Domain:
    """One kind of fact."""

    name: str
    templates: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    """Topics and their answers; several topics may have the same."""

    @property
    def topics(self) -> dict[str, list[str]]:
        """The topics of each answer."""
        grouped: dict[str, list[str]] = {}
        for topic, answer in self.facts:
            grouped.setdefault(answer, []).append(topic)
        return grouped


@cache
def read_domain(name: str) -> Domain:
    """Read one of :data:`DOMAINS`."""
    content = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return Domain(name, tuple(content["templates"]), tuple(content["facts"].items()))
