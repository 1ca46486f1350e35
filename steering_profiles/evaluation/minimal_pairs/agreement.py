"""Agreement in number: of a verb with its subject, with and without other nouns between them, and of a determiner."""

from steering_profiles.evaluation.minimal_pairs.drawing import Draw
from steering_profiles.evaluation.minimal_pairs.vocabulary import (
    ADJECTIVES,
    FEMALE,
    IRREGULAR,
    MALE,
    NAMES,
    PEOPLE,
    PEOPLE_ARE,
    PLACES,
    THINGS,
    THINGS_ARE,
)

Sentences = tuple[str, str]
"""A good sentence and a bad one."""

_VERBS = (
    ("like", "likes"), ("want", "wants"), ("know", "knows"), ("need", "needs"), ("remember", "remembers"),
    ("trust", "trusts"), ("hear", "hears"), ("follow", "follows"), ("admire", "admires"), ("avoid", "avoids"),
)  # fmt: skip
"""Verbs whose plural is not also a past, as that of ``read`` is."""
_COPULAS = (("are", "is"), ("were", "was"))
_ON = ("on the table", "on the floor", "in the kitchen", "in the garden", "under the bed", "on the wall")
_BESIDE = ("next to", "behind", "near", "under", "beside", "in front of")
_SEVERAL = ("two", "three", "four", "many", "several")
_HANDLED = ("bought", "sold", "cleaned", "painted", "moved", "carried", "lost", "hid", "dropped", "kept", "broke")
"""Verbs that no clause with ``that`` follows."""
_MET = ("met", "visited", "helped", "followed", "admired", "photographed", "avoided", "hired")
_DETERMINERS = (("these", "this"), ("those", "that"))


def _swapped(forms: Sentences, plural: bool) -> Sentences:
    """Return the right and the wrong one of two forms, of which the first is the plural."""
    return forms if plural else (forms[1], forms[0])


def verb(draw: Draw) -> Sentences:
    """``The teachers like the king.`` / ``likes``."""
    plural = draw.flip()
    right, wrong = _swapped(draw.one(_VERBS), plural)
    subject, object_ = draw.one(PEOPLE).form(plural=plural), draw.one(FEMALE + MALE).one
    return f"The {subject} {right} the {object_}.", f"The {subject} {wrong} the {object_}."


def copula(draw: Draw) -> Sentences:
    """``The nurse is tired.`` / ``are``."""
    plural = draw.flip()
    right, wrong = _swapped(draw.one(_COPULAS), plural)
    subject, adjective = draw.one(PEOPLE).form(plural=plural), draw.one(PEOPLE_ARE)
    return f"The {subject} {right} {adjective}.", f"The {subject} {wrong} {adjective}."


def perfect(draw: Draw) -> Sentences:
    """``The guards have left the house.`` / ``has``."""
    plural = draw.flip()
    right, wrong = _swapped(("have", "has"), plural)
    subject, verb_, place = (
        draw.one(PEOPLE).form(plural=plural),
        draw.one(("left", "reached", "found")),
        draw.one(PLACES),
    )
    return f"The {subject} {right} {verb_} the {place}.", f"The {subject} {wrong} {verb_} the {place}."


def attractor(draw: Draw) -> Sentences:
    """``The keys next to the lamp are old.`` / ``is``: the noun before the verb has the other number."""
    plural = draw.flip()
    right, wrong = _swapped(draw.one(_COPULAS), plural)
    head, other = draw.two(THINGS)
    subject = f"The {head.form(plural=plural)} {draw.one(_BESIDE)} the {other.form(plural=not plural)}"
    adjective = draw.one(THINGS_ARE)
    return f"{subject} {right} {adjective}.", f"{subject} {wrong} {adjective}."


def attractor_with_verb(draw: Draw) -> Sentences:
    """``The driver behind the tourists knows the queen.`` / ``know``."""
    plural = draw.flip()
    right, wrong = _swapped(draw.one(_VERBS), plural)
    head, other = draw.two(PEOPLE)
    subject = f"The {head.form(plural=plural)} {draw.one(_BESIDE)} the {other.form(plural=not plural)}"
    object_ = draw.one(FEMALE + MALE).one
    return f"{subject} {right} the {object_}.", f"{subject} {wrong} the {object_}."


def relative_clause(draw: Draw) -> Sentences:
    """``The pilot who the nurses met was late.`` / ``were``."""
    plural = draw.flip()
    right, wrong = _swapped(draw.one(_COPULAS), plural)
    head, other = draw.two(PEOPLE)
    subject = f"The {head.form(plural=plural)} who the {other.form(plural=not plural)} {draw.one(_MET)}"
    adjective = draw.one(PEOPLE_ARE)
    return f"{subject} {right} {adjective}.", f"{subject} {wrong} {adjective}."


def relative_clause_of_the_subject(draw: Draw) -> Sentences:
    """``The writers who met the king have left.`` / ``has``."""
    plural = draw.flip()
    right, wrong = _swapped(("have", "has"), plural)
    head, other = draw.two(PEOPLE)
    subject = f"The {head.form(plural=plural)} who {draw.one(_MET)} the {other.form(plural=not plural)}"
    ending = f"left the {draw.one(PLACES)}"
    return f"{subject} {right} {ending}.", f"{subject} {wrong} {ending}."


def there(draw: Draw) -> Sentences:
    """``There are three cups on the table.`` / ``is``."""
    plural = draw.flip()
    right, wrong = _swapped(draw.one(_COPULAS), plural)
    determiner = draw.one(_SEVERAL) if plural else "only one"
    rest = f"{determiner} {draw.one(THINGS).form(plural=plural)} {draw.one(_ON)}"
    return f"There {right} {rest}.", f"There {wrong} {rest}."


def determiner(draw: Draw) -> Sentences:
    """``Anna bought these chairs.`` / ``this``."""
    plural = draw.flip()
    right, wrong = _swapped(draw.one(_DETERMINERS), plural)
    start, noun = f"{draw.one(NAMES)} {draw.one(_HANDLED)}", draw.one(THINGS).form(plural=plural)
    return f"{start} {right} {noun}.", f"{start} {wrong} {noun}."


def determiner_and_adjective(draw: Draw) -> Sentences:
    """``Peter sold that old lamp.`` / ``those``."""
    plural = draw.flip()
    right, wrong = _swapped(draw.one(_DETERMINERS), plural)
    start, noun = f"{draw.one(NAMES)} {draw.one(_HANDLED)}", draw.one(THINGS).form(plural=plural)
    adjective = draw.one(ADJECTIVES)
    return f"{start} {right} {adjective} {noun}.", f"{start} {wrong} {adjective} {noun}."


def determiner_of_an_irregular_noun(draw: Draw) -> Sentences:
    """``Laura painted those children.`` / ``that``."""
    plural = draw.flip()
    right, wrong = _swapped(draw.one(_DETERMINERS), plural)
    start = f"{draw.one(NAMES)} {draw.one(('painted', 'photographed', 'lost', 'drew', 'examined', 'touched'))}"
    noun = draw.one(IRREGULAR).form(plural=plural)
    return f"{start} {right} {noun}.", f"{start} {wrong} {noun}."
