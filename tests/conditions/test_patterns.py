"""Patterns hold where the text so far ends with a match, as Python's regular expressions find it, in linear time."""

import random
import re
import time

import pytest

from steering_profiles.conditions.automaton import MOST_STATES
from steering_profiles.conditions.patterns import compiled

PATTERNS = [
    r"a", r"\w+\(", r"(\w+\(){2,}\w*", r"a{2}b?", r"[^()\n]*x", r"(a|bc)+d", r"(?:a|b)c", r"a{0,3}b", r"^ab*", r"é+",
    r".{3}z", r"(a*)*b", r"\d{2,4}-", r"[a-c\-]x", r"[-a]x", r"(ab){2,3}c", r"x(a{1,2}){2}", r"(a|b?)c", r"(a?){3}c",
    r"[é-π€]b", r"[^é]b", r"\s\S", r"\W\D",
]  # fmt: skip


def holds(pattern: str, text: str) -> bool:
    automaton = compiled(pattern)
    return automaton.read(automaton.start, text.encode()).is_match


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_holds_where_a_match_ends(pattern: str):
    in_python = re.compile(f"(?:{pattern})\\Z", re.ASCII)
    draw, found = random.Random(pattern), set()
    for _ in range(1500):
        alphabet = draw.choice(("abcx(", "a1-z ", "aabbcdxz(1-\n é€π\U0001f600"))
        text = "".join(draw.choice(alphabet) for _ in range(draw.randrange(12)))
        found.add(in_python.search(text) is not None)
        assert holds(pattern, text) is (in_python.search(text) is not None), text
    assert found == {True, False}, "these texts do not show what the pattern does"


def test_a_text_that_ends_within_a_character_matches_nothing():
    automaton = compiled(".")
    assert automaton.read(automaton.start, "aé".encode()).is_match
    assert not automaton.read(automaton.start, "aé".encode()[:-1]).is_match


def test_reading_goes_on_from_any_state():
    automaton = compiled(r"(ab)+c")
    state = automaton.start
    for character in "xabab":
        state = automaton.read(state, character.encode())
        assert not state.is_match
    assert automaton.read(state, b"c").is_match


def test_no_pattern_is_slow():
    """Python's own engine takes years for this one, and a set of states that doubles with each character forgets."""
    begun = time.monotonic()
    assert not holds(r"(a*)*(a*)*(a|a)*b", "a" * 20_000)
    assert holds(r"(a|b)*a(a|b){21}", "ab" * 10_000)
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("a**", "at character 2 there is a repetition of a repetition"),
        ("(a", r"a \( without its \)"),
        ("a)", r"at character 1 there is a \) without its \("),
        ("[ab", r"a \[ without its \]"),
        ("[]", "an empty set"),
        ("[z-a]", "does not go upwards"),
        ("a{3,2}", "3 to 2 repetitions"),
        ("a{0}", "0 to 0 repetitions"),
        ("a{2", "no repetition such as"),
        ("a{101}", "more than 100 repetitions"),
        ("((a{50}){50})", f"more than {MOST_STATES} states"),
        ("*a", "with nothing before it"),
        ("a$", "which is not needed"),
        ("a^", "with nothing before it"),
        ("\\q", "allowed after a backslash"),
        ("a\\", "a \\\\ at the end"),
        ("(?=a)", "kind that is not supported"),
        ("(" * 60 + "a" + ")" * 60, "more than 50 groups"),
        ("a*", "would hold everywhere"),
        ("x|", "would hold everywhere"),
    ],
)
def test_what_is_no_pattern_is_refused_with_its_place(pattern: str, said: str):
    with pytest.raises(ValueError, match=said):
        compiled(pattern)
