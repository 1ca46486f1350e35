"""Words of the minimal pairs: common ones, so that what a model gets wrong is the grammar and not the word."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Noun:
    """A countable noun."""

    one: str
    many: str

    def form(self, *, plural: bool) -> str:
        """Return the plural or the singular."""
        return self.many if plural else self.one


def _nouns(words: str) -> tuple[Noun, ...]:
    """Return the nouns of ``words``: ``cup`` with a regular plural, ``child/children`` with another one."""
    parts = (word.partition("/") for word in words.split())
    return tuple(Noun(one, many or f"{one}s") for one, _, many in parts)


WOMEN = ("Anna", "Maria", "Susan", "Helen", "Laura", "Emma", "Rachel", "Julia", "Sarah", "Karen", "Alice", "Linda")
MEN = ("Peter", "David", "Thomas", "Robert", "Daniel", "Martin", "James", "Paul", "Simon", "George", "Henry", "Frank")
NAMES = WOMEN + MEN

PEOPLE = _nouns(
    "teacher doctor farmer lawyer nurse driver student painter singer pilot writer baker soldier artist manager guard "
    "dancer tourist visitor engineer"
)
FEMALE = _nouns("woman/women girl mother sister queen aunt daughter actress/actresses princess/princesses grandmother")
MALE = _nouns("man/men boy father brother king uncle son actor prince grandfather")
THINGS = _nouns(
    "key book letter picture box/boxes lamp chair cup bottle coat map ticket clock bag plate basket blanket ladder"
)
IRREGULAR = _nouns("child/children woman/women man/men tooth/teeth mouse/mice goose/geese")
PLACES = ("garden", "house", "kitchen", "office", "market", "station", "museum", "church", "library", "park", "hotel")
WHERE = (
    "in the garden", "in the kitchen", "at the station", "at the market", "in the park", "in the library",
    "near the church", "behind the house", "in front of the hotel", "after the meeting", "last night",
)  # fmt: skip
"""Places and times at the end of a sentence about the past."""
PEOPLE_ARE = ("tired", "hungry", "happy", "late", "ready", "busy", "angry", "ill", "rich", "famous", "afraid")
THINGS_ARE = ("old", "heavy", "new", "missing", "dirty", "expensive", "broken", "small", "beautiful", "cheap")
ADJECTIVES = ("old", "heavy", "new", "small", "dirty", "beautiful", "cheap", "large", "red", "green", "broken")
