"""A grader of one's own: whether an answer has at most so many sentences, as in ``--grader sentences:2``."""

import re

from steering_ab import Answer, Item
from steering_ab.errors import GraderError


class AtMostSentences:
    """Grades an answer with 1 if it has at most ``most`` sentences, with 0 if it has more or none."""

    yes_no = True

    def __init__(self, most: int) -> None:
        self.most = most

    def require(self, item: Item) -> None:
        """Check an item before anything is asked. This one needs nothing of it, so the method could be left out."""

    def grade(self, item: Item, answer: Answer) -> float:
        """Return the grade."""
        sentences = [part for part in re.split(r"[.!?]+(?:\s|$)", answer.text) if part.strip()]
        return float(1 <= len(sentences) <= self.most)


def make(argument: str | None) -> AtMostSentences:
    """Return the grader for the text after the colon in ``sentences:2``; None if there is no colon.

    Raises:
        GraderError: the text is not a number of sentences.
    """
    text = argument or "1"
    if not text.isdecimal() or int(text) < 1:
        raise GraderError(f"grader sentences:{text}: allowed: a number of sentences from 1 on")
    return AtMostSentences(int(text))
