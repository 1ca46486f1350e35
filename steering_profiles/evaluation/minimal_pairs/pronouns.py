"""Pronouns: the gender, number and antecedent of reflexives, and the case of personal pronouns."""

from steering_profiles.evaluation.minimal_pairs.agreement import Sentences
from steering_profiles.evaluation.minimal_pairs.drawing import Draw
from steering_profiles.evaluation.minimal_pairs.vocabulary import (
    FEMALE,
    MALE,
    MEN,
    NAMES,
    PEOPLE,
    PEOPLE_ARE,
    PLACES,
    WHERE,
    WOMEN,
)

_TO_ONESELF = ("blamed", "hurt", "introduced", "defended", "described", "praised", "washed", "watched", "warned")
_SAID = ("said", "thought", "knew", "believed", "heard", "remembered")
_MET = ("met", "saw", "helped", "followed", "found", "warned", "praised", "invited", "photographed")
_WITH = ("talked to", "waited for", "laughed at", "danced with", "sat behind", "played with", "walked past")
_CASES = (("him", "he"), ("her", "she"), ("them", "they"), ("us", "we"), ("me", "I"))
_SUBJECTS = (("he", "him"), ("she", "her"), ("they", "them"), ("we", "us"))
_WENT = ("visited", "left", "found", "cleaned", "painted", "reached")


def gender_of_a_name(draw: Draw) -> Sentences:
    """``Anna blamed herself after the meeting.`` / ``himself``."""
    woman = draw.flip()
    right, wrong = ("herself", "himself") if woman else ("himself", "herself")
    start, where = f"{draw.one(WOMEN if woman else MEN)} {draw.one(_TO_ONESELF)}", draw.one(WHERE)
    return f"{start} {right} {where}.", f"{start} {wrong} {where}."


def gender_of_a_noun(draw: Draw) -> Sentences:
    """``The queen defended herself last night.`` / ``himself``."""
    woman = draw.flip()
    right, wrong = ("herself", "himself") if woman else ("himself", "herself")
    start, where = f"The {draw.one(FEMALE if woman else MALE).one} {draw.one(_TO_ONESELF)}", draw.one(WHERE)
    return f"{start} {right} {where}.", f"{start} {wrong} {where}."


def number(draw: Draw) -> Sentences:
    """``The girls hurt themselves in the park.`` / ``herself``."""
    woman, plural = draw.flip(), draw.flip()
    alone = "herself" if woman else "himself"
    right, wrong = ("themselves", alone) if plural else (alone, "themselves")
    noun = draw.one(FEMALE if woman else MALE).form(plural=plural)
    start, where = f"The {noun} {draw.one(_TO_ONESELF)}", draw.one(WHERE)
    return f"{start} {right} {where}.", f"{start} {wrong} {where}."


def number_with_an_attractor(draw: Draw) -> Sentences:
    """``The boys near the king blamed themselves.`` / ``himself``: the antecedent is not the nearest noun."""
    woman, plural = draw.flip(), draw.flip()
    alone = "herself" if woman else "himself"
    right, wrong = ("themselves", alone) if plural else (alone, "themselves")
    head, other = draw.two(FEMALE if woman else MALE)
    subject = (
        f"The {head.form(plural=plural)} {draw.one(('near', 'behind', 'beside'))} the {other.form(plural=not plural)}"
    )
    start = f"{subject} {draw.one(_TO_ONESELF)}"
    return f"{start} {right}.", f"{start} {wrong}."


def clause(draw: Draw) -> Sentences:
    """``Anna said that Peter blamed himself.`` / ``herself``: the antecedent is in the same clause."""
    woman = draw.flip()
    right, wrong = ("himself", "herself") if woman else ("herself", "himself")
    outer, inner = (draw.one(names) for names in ((WOMEN, MEN) if woman else (MEN, WOMEN)))
    start = f"{outer} {draw.one(_SAID)} that {inner} {draw.one(_TO_ONESELF)}"
    return f"{start} {right}.", f"{start} {wrong}."


def case_of_an_object(draw: Draw) -> Sentences:
    """``The doctor met them at the station.`` / ``they``."""
    right, wrong = draw.one(_CASES)
    start, where = f"The {draw.one(PEOPLE).form(plural=draw.flip())} {draw.one(_MET)}", draw.one(WHERE)
    return f"{start} {right} {where}.", f"{start} {wrong} {where}."


def case_after_a_preposition(draw: Draw) -> Sentences:
    """``The children waited for her in the park.`` / ``she``."""
    right, wrong = draw.one(_CASES)
    start, where = f"The {draw.one(PEOPLE).form(plural=draw.flip())} {draw.one(_WITH)}", draw.one(WHERE)
    return f"{start} {right} {where}.", f"{start} {wrong} {where}."


def case_of_a_subject(draw: Draw) -> Sentences:
    """``Yesterday they visited the museum.`` / ``them``."""
    right, wrong = draw.one(_SUBJECTS)
    day = draw.one(("Yesterday", "Last week", "On Monday", "In the morning", "Last year", "On Sunday"))
    rest = f"{draw.one(_WENT)} the {draw.one(PLACES)}"
    return f"{day} {right} {rest}.", f"{day} {wrong} {rest}."


def case_in_a_clause(draw: Draw) -> Sentences:
    """``Anna said that he was late.`` / ``him``."""
    right, wrong = draw.one((*_SUBJECTS[:2], ("they", "them"), ("we", "us")))
    was = "were" if right in ("they", "we") else "was"
    start, rest = f"{draw.one(NAMES)} {draw.one(_SAID)} that", f"{was} {draw.one(PEOPLE_ARE)}"
    return f"{start} {right} {rest}.", f"{start} {wrong} {rest}."
