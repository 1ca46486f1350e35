"""Verbs: irregular forms, forms after auxiliaries and after other verbs, and which verbs take an object."""

from steering_profiles.evaluation.minimal_pairs.agreement import Sentences
from steering_profiles.evaluation.minimal_pairs.drawing import Draw
from steering_profiles.evaluation.minimal_pairs.vocabulary import FEMALE, MALE, NAMES, PEOPLE, PLACES, THINGS

_IRREGULAR = (
    ("broke", "broken", "window"), ("wrote", "written", "letter"), ("stole", "stolen", "bag"),
    ("drank", "drunk", "milk"), ("chose", "chosen", "coat"), ("ate", "eaten", "bread"), ("took", "taken", "ticket"),
    ("wore", "worn", "ring"), ("tore", "torn", "picture"), ("threw", "thrown", "ball"), ("drew", "drawn", "map"),
    ("saw", "seen", "queen"), ("began", "begun", "work"), ("drove", "driven", "truck"), ("sang", "sung", "song"),
    ("gave", "given", "answer"), ("knew", "known", "truth"), ("rode", "ridden", "horse"), ("shook", "shaken", "tree"),
    ("flew", "flown", "plane"),
)  # fmt: skip
"""A past that is no participle, the participle, and an object."""
_WORDS = (
    ("read", "reads", "reading", "book"), ("write", "writes", "writing", "letter"), ("buy", "buys", "buying", "lamp"),
    ("open", "opens", "opening", "box"), ("clean", "cleans", "cleaning", "kitchen"),
    ("paint", "paints", "painting", "house"), ("carry", "carries", "carrying", "bag"),
    ("sell", "sells", "selling", "clock"), ("visit", "visits", "visiting", "museum"),
    ("draw", "draws", "drawing", "map"), ("watch", "watches", "watching", "birds"),
    ("use", "uses", "using", "computer"),
)  # fmt: skip
"""Base, third person and ``-ing`` of a verb, and an object."""
_MODALS = ("can", "will", "must", "should", "may", "could", "would", "might")
_PASTS = (
    ("visit", "visited", "museum"), ("open", "opened", "box"), ("clean", "cleaned", "kitchen"),
    ("find", "found", "key"),
    ("buy", "bought", "lamp"), ("paint", "painted", "house"), ("break", "broke", "window"), ("sell", "sold", "clock"),
    ("write", "wrote", "letter"), ("see", "saw", "queen"), ("watch", "watched", "film"), ("leave", "left", "office"),
)  # fmt: skip
_BEFORE_INFINITIVES = ("wants", "decided", "hopes", "refused", "promised", "agreed", "offered", "managed")
_BEFORE_GERUNDS = ("enjoys", "finished", "avoids", "suggested", "denied", "keeps")
_TRANSITIVE = ("opened", "cleaned", "found", "bought", "carried", "repaired", "sold", "painted", "admired", "borrowed")
_INTRANSITIVE = ("arrived", "smiled", "slept", "laughed", "fell", "waited", "cried", "stayed", "stood")
_NEEDING_OBJECTS = (
    "bought",
    "carried",
    "repaired",
    "found",
    "admired",
    "borrowed",
    "praised",
    "used",
    "owned",
)


def participle(draw: Draw) -> Sentences:
    """``The boy has broken the window.`` / ``broke``."""
    past, participle_, object_ = draw.one(_IRREGULAR)
    start = f"The {draw.one(MALE + FEMALE + PEOPLE).one} {draw.one(('has', 'had'))}"
    return f"{start} {participle_} the {object_}.", f"{start} {past} the {object_}."


def past(draw: Draw) -> Sentences:
    """``The girl drank the milk.`` / ``drunk``."""
    past_, participle_, object_ = draw.one(_IRREGULAR)
    start = f"The {draw.one(MALE + FEMALE + PEOPLE).one}"
    return f"{start} {past_} the {object_}.", f"{start} {participle_} the {object_}."


def modal(draw: Draw) -> Sentences:
    """``The nurse must open the box.`` / ``opens``."""
    base, third, _, object_ = draw.one(_WORDS)
    start = f"The {draw.one(PEOPLE).one} {draw.one(_MODALS)}"
    return f"{start} {base} the {object_}.", f"{start} {third} the {object_}."


def did(draw: Draw) -> Sentences:
    """``The guests did not see the queen.`` / ``saw``."""
    base, past_, object_ = draw.one(_PASTS)
    start = f"The {draw.one(PEOPLE).form(plural=draw.flip())} did not"
    return f"{start} {base} the {object_}.", f"{start} {past_} the {object_}."


def progressive(draw: Draw) -> Sentences:
    """``The student is reading the book.`` / ``reads``."""
    _, third, ing, object_ = draw.one(_WORDS)
    start = f"The {draw.one(PEOPLE).one} {draw.one(('is', 'was'))}"
    return f"{start} {ing} the {object_}.", f"{start} {third} the {object_}."


def infinitive(draw: Draw) -> Sentences:
    """``Anna decided to sell the clock.`` / ``selling``."""
    base, _, ing, object_ = draw.one(_WORDS)
    start = f"{draw.one(NAMES)} {draw.one(_BEFORE_INFINITIVES)}"
    return f"{start} to {base} the {object_}.", f"{start} {ing} the {object_}."


def gerund(draw: Draw) -> Sentences:
    """``Peter enjoys watching the birds.`` / ``to watch``."""
    base, _, ing, object_ = draw.one(_WORDS)
    start = f"{draw.one(NAMES)} {draw.one(_BEFORE_GERUNDS)}"
    return f"{start} {ing} the {object_}.", f"{start} to {base} the {object_}."


def with_an_object(draw: Draw) -> Sentences:
    """``The farmer repaired the clock.`` / ``smiled``."""
    start, end = f"The {draw.one(PEOPLE).form(plural=draw.flip())}", f"the {draw.one(THINGS).form(plural=draw.flip())}"
    return f"{start} {draw.one(_TRANSITIVE)} {end}.", f"{start} {draw.one(_INTRANSITIVE)} {end}."


def without_an_object(draw: Draw) -> Sentences:
    """``The tourists laughed in the garden.`` / ``carried``."""
    start, end = f"The {draw.one(PEOPLE).form(plural=draw.flip())}", f"in the {draw.one(PLACES)}"
    return f"{start} {draw.one(_INTRANSITIVE)} {end}.", f"{start} {draw.one(_NEEDING_OBJECTS)} {end}."
