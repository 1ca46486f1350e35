"""Minimal pairs of grammar: a good sentence and a bad one that differ in little, as in BLiMP (arXiv:1912.00582).

They are made here by templates, the same ones on every machine. Both sentences of a pair begin with the same word, so
that a model whose tokenizer adds no beginning-of-text token scores all that differs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from steering_profiles.evaluation.minimal_pairs import agreement, pronouns, syntax, verbs
from steering_profiles.evaluation.minimal_pairs.drawing import Draw

PAIRS = 48
"""Pairs of each phenomenon; its templates take turns."""
_MOST_TRIES = 50 * PAIRS

Template = Callable[[Draw], tuple[str, str]]

PHENOMENA: dict[str, tuple[Template, ...]] = {
    "subject and verb": (agreement.verb, agreement.copula, agreement.perfect),
    "subject and verb, a noun between": (agreement.attractor, agreement.attractor_with_verb),
    "subject and verb, a clause between": (agreement.relative_clause, agreement.relative_clause_of_the_subject),
    "there is and there are": (agreement.there,),
    "determiner and noun": (
        agreement.determiner,
        agreement.determiner_and_adjective,
        agreement.determiner_of_an_irregular_noun,
    ),
    "reflexive pronouns": (
        pronouns.gender_of_a_name,
        pronouns.gender_of_a_noun,
        pronouns.number,
        pronouns.number_with_an_attractor,
    ),
    "antecedent in the clause": (pronouns.clause,),
    "case of pronouns": (
        pronouns.case_of_an_object,
        pronouns.case_after_a_preposition,
        pronouns.case_of_a_subject,
        pronouns.case_in_a_clause,
    ),
    "irregular past and participle": (verbs.participle, verbs.past),
    "form after an auxiliary": (verbs.modal, verbs.did, verbs.progressive),
    "infinitive and gerund": (verbs.infinitive, verbs.gerund),
    "argument structure": (verbs.with_an_object, verbs.without_an_object),
    "negative polarity": (syntax.ever, syntax.nobody, syntax.any_, syntax.anybody),
    "question and gap": (syntax.gap, syntax.no_gap),
    "quantifiers": (syntax.much_or_many, syntax.every_or_several, syntax.there_with_a_quantifier),
    "comparison": (syntax.than, syntax.as_as, syntax.more),
    "articles": (syntax.article,),
    "word order": (syntax.question, syntax.question_with_be, syntax.adjective, syntax.adverb),
}
"""The templates of each phenomenon, by its name."""


@dataclass(frozen=True)
class Pair:
    """A sentence and a worse one that differs in little."""

    good: str
    bad: str


@cache
def minimal_pairs() -> dict[str, tuple[Pair, ...]]:
    """Return the ``PAIRS`` different pairs of each of the ``PHENOMENA``."""
    return {name: _pairs_of(name, templates) for name, templates in PHENOMENA.items()}


def _pairs_of(name: str, templates: tuple[Template, ...]) -> tuple[Pair, ...]:
    found: dict[Pair, None] = {}  # in order
    for number in range(_MOST_TRIES):
        if len(found) == PAIRS:
            break
        found.setdefault(Pair(*templates[number % len(templates)](Draw(name, number))))
    return tuple(found)
