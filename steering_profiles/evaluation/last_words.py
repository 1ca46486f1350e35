"""Prediction of the last words of sentences, as in LAMBADA (arXiv:1606.06031): the whole word must be the likeliest.

The sentences are those of running text, so every word is predicted in the pass over the text's windows, from what
comes before it in its window.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from steering_profiles.evaluation.bootstrap import mean_interval, relative_change_interval
from steering_profiles.evaluation.side_effects import LastWordsEffect
from steering_profiles.evaluation.token_changes import TokenChanges
from steering_profiles.evaluation.windows import Window
from steering_profiles.models import LoadedModel

LEAST_CONTEXT = 32
"""Minimum number of tokens before a word in its window."""
_LAST_WORD = re.compile(
    r"(?<= )(?<![.!?] )(?<![.!?][\"'”’)] )"  # a word before it in its sentence
    r"[^\W\d_]{2,}(?:['’-][^\W\d_]+)*(?=[.!?][\"'”’)]*(?:\s|$))"
)


@dataclass(frozen=True)
class Word:
    """The place of a word in a text that is cut into windows."""

    window: int
    start: int
    """Index of the word's first token among the predicted tokens of the window."""
    end: int
    """Index after its last token."""


def last_words(text: str) -> list[tuple[int, int]]:
    """Return where the last word of each sentence starts and ends in ``text``.

    It has two letters or more and a word before it: a sentence of one word has none.
    """
    return [match.span() for match in _LAST_WORD.finditer(text)]


def find_last_words(loaded: LoadedModel, text: str, windows: Sequence[Window]) -> tuple[Word, ...] | None:
    """Return the last words of sentences in ``windows``, which :func:`.text_windows` made of ``text``.

    A token that has part of a word belongs to it. Words that two windows share, and those with fewer than
    ``LEAST_CONTEXT`` tokens before them in their window, are left out. None if the tokenizer cannot tell which
    characters a token has: only Python's are such.
    """
    if not loaded.tokenizer.is_fast:
        return None
    places = loaded.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    spans: list[tuple[int, int]] = places["offset_mapping"]
    sizes = [len(window.predicted) for window in windows]
    unpredicted = len(spans) - sum(sizes)  # the first token, where there is no beginning-of-text token
    starts = (np.cumsum([unpredicted, *sizes])).tolist()  # of each window, in tokens of the text
    found, token = [], 0
    for first, last in last_words(text):
        while token < len(spans) - 1 and spans[token][1] <= first:
            token += 1
        end = token
        while end < len(spans) and spans[end][0] < last:
            end += 1
        window = int(np.searchsorted(starts, token, side="right")) - 1
        if window < 0 or end > starts[window + 1]:
            continue
        start = token - starts[window]
        if windows[window].given + start >= LEAST_CONTEXT:
            found.append(Word(window, start, end - starts[window]))
    return tuple(found)


def last_words_effect(words: Sequence[Word], changes: Sequence[TokenChanges]) -> LastWordsEffect | None:
    """Return the effect on ``words``, with ``changes`` of the windows that they are in; None if there are none."""
    if not words:
        return None
    nll = np.array(
        [[float(arm[word.start : word.end].sum()) for arm in changes[word.window].nll] for word in words]
    )  # [words, 2]
    right = np.array(
        [[float(arm[word.start : word.end].all()) for arm in changes[word.window].correct] for word in words]
    )
    before, after = right.mean(axis=0).tolist()
    nll_before, nll_after = nll.mean(axis=0).tolist()
    return LastWordsEffect(
        words=len(words),
        correct=(before, after),
        correct_interval=mean_interval([*(right[:, 1:] - right[:, :1])]),
        nll=(nll_before, nll_after),
        nll_interval=relative_change_interval([*nll[:, :1]], [*nll[:, 1:]]),
    )
