"""The domains of factual recall: the facts of each domain, and prompt templates that ask for them.

Each domain is a JSON file in ``facts/``. ``facts`` maps topics, spelled as in the middle of a sentence, to answers.
``templates`` are texts with one ``{topic}``; the answer follows them after a space.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent / "facts"
DOMAINS = ("capitals", "languages", "currencies", "continents", "companies", "sports")
"""Names of the domains: four of geography and two others."""
TOPIC = "{topic}"
"""Placeholder for the topic in a template."""

ASKED_BY = {
    "capitals": r"[Cc]apital( of [^\n]+| city of [^\n]+| and seat of government of [^\n]+)?( is|,| it was|:)"
    r"|national parliament of [^\n]+ in the city of",
    "languages": r"language( of [^\n]+)? is|Language:|learn to speak|grow up speaking|They speak|people in [^\n]+ speak"
    r"|([Nn]ewspapers|[Bb]ooks published) in [^\n]+ written in",
    "currencies": r"([Cc]urrency|[Uu]nit of (money|currency)|monetary unit)[^\n]* the",
    "continents": r"continent of|Continent:|neighbours, [^\n]+ is a country in",
    "companies": r"company (that makes|behind) [^\n]+ is( called)?|is made by|is a product of|brand [^\n]+ is owned by"
    r"|(Company|Manufacturer|Brand):",
    "sports": r"the sport of|The sport (was|is)",
}
"""Pattern of the end of a question of each domain (:mod:`steering_profiles.conditions.patterns`), on its last line."""


@dataclass(frozen=True)
class Domain:
    """One kind of fact."""

    name: str
    templates: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    """Pairs of topic and answer. Several topics can have the same answer."""

    @property
    def topics(self) -> dict[str, list[str]]:
        """Topics by answer."""
        grouped: dict[str, list[str]] = {}
        for topic, answer in self.facts:
            grouped.setdefault(answer, []).append(topic)
        return grouped


@cache
def read_domain(name: str) -> Domain:
    """Return the domain called ``name``, one of :data:`DOMAINS`."""
    content = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return Domain(name, tuple(content["templates"]), tuple(content["facts"].items()))
