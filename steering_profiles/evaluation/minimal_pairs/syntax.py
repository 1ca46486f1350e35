"""What needs something else in the sentence: polarity items, gaps, quantifiers, comparison, order of words."""

from steering_profiles.evaluation.minimal_pairs.agreement import Sentences
from steering_profiles.evaluation.minimal_pairs.drawing import Draw
from steering_profiles.evaluation.minimal_pairs.vocabulary import ADJECTIVES, NAMES, PEOPLE, PLACES, THINGS, WHERE

_KNOWS = ("knows", "remembers", "knew", "remembered", "understood", "forgot")
_SAYS = ("says", "thinks", "knows", "believes", "said", "thought")
_HAS = ("visited", "cleaned", "painted", "found", "sold", "seen", "left", "photographed")
_GOT = ("bought", "found", "carried", "repaired", "borrowed", "brought", "fixed", "used")
"""Verbs that need an object."""
_MASS = ("water", "milk", "bread", "rice", "money", "sugar", "furniture", "luggage", "sand", "butter", "flour")
_ON = ("on the table", "on the floor", "in the kitchen", "in the garden", "under the bed", "in the office")
_AT = ("at the office", "at the market", "in the park", "at the station", "in the library", "at the hotel")
_ER = (
    ("older", "oldest"), ("smaller", "smallest"), ("larger", "largest"), ("cheaper", "cheapest"), ("newer", "newest"),
    ("heavier", "heaviest"), ("taller", "tallest"), ("cleaner", "cleanest"), ("longer", "longest"),
)  # fmt: skip
_AS = ("old", "small", "large", "cheap", "new", "heavy", "tall", "clean", "long")
_LONG = ("expensive", "beautiful", "famous", "modern", "comfortable", "useful", "interesting", "dangerous")
_VOWELS = ("apple", "orange", "egg", "umbrella", "old coat", "empty box", "expensive lamp", "ugly chair", "envelope")
_CONSONANTS = ("banana", "lemon", "ticket", "lamp", "new coat", "large box", "cheap chair", "basket", "letter", "map")
_ACTS = (
    ("buy", "the lamp"), ("find", "the key"), ("sell", "the clock"), ("see", "the queen"), ("hide", "the letter"),
    ("leave", "the bag"), ("meet", "the doctor"), ("lose", "the ticket"),
)  # fmt: skip


def ever(draw: Draw) -> Sentences:
    """``Anna says that no doctor has ever seen the house.`` / ``some``."""
    start = f"{draw.one(NAMES)} {draw.one(_SAYS)} that"
    rest = f"{draw.one(PEOPLE).one} has ever {draw.one(_HAS)} the {draw.one(PLACES)}"
    return f"{start} no {rest}.", f"{start} {draw.one(('some', 'the', 'this', 'that'))} {rest}."


def nobody(draw: Draw) -> Sentences:
    """``Peter thinks that nobody has ever left the hotel.`` / ``somebody``."""
    start = f"{draw.one(NAMES)} {draw.one(_SAYS)} that"
    rest = f"has ever {draw.one(_HAS)} the {draw.one(PLACES)}"
    return f"{start} nobody {rest}.", f"{start} {draw.one(('somebody', 'everybody'))} {rest}."


def any_(draw: Draw) -> Sentences:
    """``The baker has not sold any bread.`` / ``also``."""
    start = f"The {draw.one(PEOPLE).one} has"
    noun = draw.one((*_MASS, *(thing.many for thing in THINGS)))
    rest = f"{draw.one(('bought', 'sold', 'found', 'seen', 'stolen', 'lost'))} any {noun}"
    return f"{start} not {rest}.", f"{start} {draw.one(('also', 'already', 'just'))} {rest}."


def anybody(draw: Draw) -> Sentences:
    """``Julia never trusts anybody.`` / ``often``."""
    start = draw.one(NAMES)
    rest = (
        f"{draw.one(('trusts', 'helps', 'visits', 'invites', 'warns', 'praises', 'follows'))} anybody {draw.one(_AT)}"
    )
    return f"{start} never {rest}.", f"{start} {draw.one(('often', 'always', 'sometimes'))} {rest}."


def gap(draw: Draw) -> Sentences:
    """``Anna knows what the driver bought at the market.`` / ``that``: the object is missing."""
    start = f"{draw.one(NAMES)} {draw.one(_KNOWS)}"
    rest = f"the {draw.one(PEOPLE).form(plural=draw.flip())} {draw.one(_GOT)} {draw.one(WHERE)}"
    return f"{start} what {rest}.", f"{start} that {rest}."


def no_gap(draw: Draw) -> Sentences:
    """``Anna knows that the driver bought the lamp.`` / ``what``: nothing is missing."""
    start = f"{draw.one(NAMES)} {draw.one(_KNOWS)}"
    clause = f"the {draw.one(PEOPLE).form(plural=draw.flip())} {draw.one(_GOT)} the {draw.one(THINGS).one}"
    rest = f"{clause} {draw.one(WHERE)}"
    return f"{start} that {rest}.", f"{start} what {rest}."


def much_or_many(draw: Draw) -> Sentences:
    """``Anna bought too much milk.`` / ``many``."""
    start = f"{draw.one(NAMES)} {draw.one(('bought', 'carried', 'sold', 'has', 'needs'))} {draw.one(('too', 'so'))}"
    if draw.flip():
        noun = draw.one(_MASS)
        return f"{start} much {noun}.", f"{start} many {noun}."
    noun = draw.one(THINGS).many
    return f"{start} many {noun}.", f"{start} much {noun}."


def every_or_several(draw: Draw) -> Sentences:
    """``Paul cleaned every cup.`` / ``several``."""
    start = f"{draw.one(NAMES)} {draw.one(('cleaned', 'moved', 'sold', 'painted', 'carried', 'lost'))}"
    noun = draw.one(THINGS)
    if draw.flip():
        return f"{start} every {noun.one}.", f"{start} several {noun.one}."
    return f"{start} several {noun.many}.", f"{start} every {noun.many}."


def there_with_a_quantifier(draw: Draw) -> Sentences:
    """``There are many cups on the table.`` / ``all``."""
    noun, where = draw.one(THINGS), draw.one(_ON)
    if draw.flip():
        rest = f"{noun.many} {where}"
        return f"There are {draw.one(('many', 'some', 'no'))} {rest}.", f"There are {draw.one(('all', 'most'))} {rest}."
    rest = f"{noun.one} {where}"
    return f"There is {draw.one(('a', 'no', 'one'))} {rest}.", f"There is {draw.one(('each', 'every'))} {rest}."


def than(draw: Draw) -> Sentences:
    """``The lamp is older than the clock.`` / ``oldest``."""
    (one, other), (right, wrong) = draw.two(THINGS), draw.one(_ER)
    return f"The {one.one} is {right} than the {other.one}.", f"The {one.one} is {wrong} than the {other.one}."


def as_as(draw: Draw) -> Sentences:
    """``The lamp is as old as the clock.`` / ``older``."""
    (one, other), place = draw.two(THINGS), draw.one(range(len(_AS)))
    start, end = f"The {one.one} is as", f"as the {other.one}"
    return f"{start} {_AS[place]} {end}.", f"{start} {_ER[place][0]} {end}."


def more(draw: Draw) -> Sentences:
    """``The hotel is more expensive than the museum.`` / ``most``."""
    (one, other), adjective = draw.two(PLACES), draw.one(_LONG)
    return f"The {one} is more {adjective} than the {other}.", f"The {one} is most {adjective} than the {other}."


def article(draw: Draw) -> Sentences:
    """``Emma found an egg in the kitchen.`` / ``a``."""
    start = f"{draw.one(NAMES)} {draw.one(('found', 'bought', 'saw', 'lost', 'dropped', 'wanted'))}"
    where = draw.one(_ON)
    if draw.flip():
        noun = draw.one(_VOWELS)
        return f"{start} an {noun} {where}.", f"{start} a {noun} {where}."
    noun = draw.one(_CONSONANTS)
    return f"{start} a {noun} {where}.", f"{start} an {noun} {where}."


def question(draw: Draw) -> Sentences:
    """``Where did the guard find the key?`` / ``Where the guard did find the key?``."""
    asked, subject = draw.one(("Where", "When", "Why", "How")), f"the {draw.one(PEOPLE).form(plural=draw.flip())}"
    verb, object_ = draw.one(_ACTS)
    return f"{asked} did {subject} {verb} {object_}?", f"{asked} {subject} did {verb} {object_}?"


def question_with_be(draw: Draw) -> Sentences:
    """``Why were the cups on the table?`` / ``Why the cups were on the table?``."""
    asked, plural = draw.one(("Why", "When", "How long")), draw.flip()
    subject, verb = f"the {draw.one(THINGS).form(plural=plural)}", "were" if plural else "was"
    where = draw.one(_ON)
    return f"{asked} {verb} {subject} {where}?", f"{asked} {subject} {verb} {where}?"


def adjective(draw: Draw) -> Sentences:
    """``Karen sold the red lamp at the market.`` / ``the lamp red``."""
    start = f"{draw.one(NAMES)} {draw.one(('sold', 'bought', 'found', 'lost', 'dropped', 'carried'))} the"
    noun, described, where = draw.one(THINGS).one, draw.one(ADJECTIVES[:-1]), draw.one(WHERE)
    return f"{start} {described} {noun} {where}.", f"{start} {noun} {described} {where}."


def adverb(draw: Draw) -> Sentences:
    """``The nurse has already left the house.`` / ``has left already the house``."""
    start = f"The {draw.one(PEOPLE).one} has"
    word, verb = draw.one(("already", "never", "always", "often")), draw.one(_HAS)
    place = draw.one(PLACES)
    return f"{start} {word} {verb} the {place}.", f"{start} {verb} {word} the {place}."
