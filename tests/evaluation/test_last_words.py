"""Prediction of the last words of sentences."""

from typing import Any

import numpy as np
import pytest
import torch

from steering_profiles.evaluation import TextPredictor, last_words, text_windows
from steering_profiles.evaluation.corpora import held_out_texts
from steering_profiles.evaluation.last_words import LEAST_CONTEXT, Word, find_last_words, last_words_effect
from steering_profiles.evaluation.token_changes import TokenChanges
from steering_profiles.models import LoadedModel, assemble
from steering_profiles.steering import UNSTEERED
from tests.builders import build_model, every_effect
from tests.evaluation.test_windows import BOS, PLAIN
from tests.library.running import steered_logits

TEXT = held_out_texts()["prose"][:6000]


def found_in(text: str) -> list[str]:
    return [text[start:end] for start, end in last_words.last_words(text)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It rained. We went home!", ["rained", "home"]),
        ('"Did you see it?" she asked. "Yes," he said.', ["it", "asked", "said"]),
        ("They met the king's well-known uncle’s", []),
        ("The king's crown is the king's. It is well-known.", ["king's", "well-known"]),
        ('It cost 2.40 in 1759. Done. Bus 7. "Why?" Yes.', []),
        ("One line\nand another one.\n\n\nÉtude für Élise. P.S. The end.", ["one", "Élise", "end"]),
    ],
)
def test_the_last_word_of_a_sentence_stands_before_its_full_stop(text: str, words: list[str]):
    assert found_in(text) == words


@pytest.mark.parametrize("loaded", [PLAIN, BOS], ids=["no beginning-of-text token", "beginning-of-text token"])
def test_a_word_is_made_of_the_tokens_that_have_a_part_of_it(loaded: LoadedModel):
    windows = text_windows(loaded, TEXT, 80)
    words = find_last_words(loaded, TEXT, windows)
    assert words is not None
    seen = [loaded.tokenizer.decode(windows[word.window].predicted[word.start : word.end]).strip() for word in words]
    expected = iter(found_in(TEXT))
    assert len(seen) > 10
    assert all(any(word == other for other in expected) for word in seen), "each is the next word, or a later one"


def test_words_without_context_and_words_in_two_windows_are_left_out():
    windows = text_windows(PLAIN, TEXT, 80)
    words = find_last_words(PLAIN, TEXT, windows) or ()
    assert len(words) < len(found_in(TEXT))
    for word in words:
        assert word.start + windows[word.window].given >= LEAST_CONTEXT
        assert word.end <= len(windows[word.window].predicted)


def test_a_tokenizer_that_cannot_say_which_characters_a_token_has_finds_none():
    class Slow:
        is_fast = False

    slow: Any = Slow()
    assert find_last_words(assemble("slow", PLAIN.model, PLAIN.tokenizer), TEXT, ()) is not None
    assert find_last_words(type("Loaded", (), {"tokenizer": slow})(), TEXT, ()) is None


def changes_of(nll: list[float], correct: list[int], correct_after: list[int]) -> TokenChanges:
    before, after = (np.array(one, dtype=np.float64) for one in (correct, correct_after))
    losses = np.array(nll)
    return TokenChanges((losses, losses * 2), (before, after), np.ones(len(nll)))


def test_a_word_is_right_only_if_all_its_tokens_are_the_likeliest():
    changes = [changes_of([0.5, 1.0, 2.0, 4.0], [1, 1, 0, 1], [1, 0, 1, 1])]
    effect = last_words_effect([Word(0, 0, 2), Word(0, 2, 4)], changes)
    assert effect is not None
    assert effect.words == 2
    assert effect.correct == (0.5, 0.5)
    assert effect.nll == (3.75, 7.5)
    assert effect.correct_interval is None, "two words have no interval"


def test_intervals_are_of_words_that_are_paired():
    changes = [changes_of([1.0], [1], [int(place % 4 != 0)]) for place in range(200)]
    effect = last_words_effect([Word(place, 0, 1) for place in range(200)], changes)
    assert effect is not None
    assert effect.correct == (1.0, 0.75)
    assert effect.nll_interval == (1.0, 1.0), "every word's loss doubles"
    low, high = effect.correct_interval or (0.0, 0.0)
    assert -0.32 < low < -0.25 < high < -0.18


def test_no_word_has_no_effect():
    assert last_words_effect((), ()) is None


def test_the_figures_are_those_of_the_words_one_by_one():
    loaded = build_model("gpt2")
    windows, steering = text_windows(loaded, TEXT, 80), every_effect(loaded)["heads"]
    words = find_last_words(loaded, TEXT, windows) or ()
    expected: dict[Any, list[float]] = {UNSTEERED: [], steering: []}
    for word in words:
        window = windows[word.window]
        start = window.given + word.start
        passage = window.tokens[: window.given + word.end]
        for arm, losses in expected.items():
            logits = steered_logits(loaded, arm, tokens=torch.tensor([passage]))[0, start - 1 : -1].double()
            losses.append(-float(logits.log_softmax(-1).gather(-1, torch.tensor(passage[start:])[:, None]).sum()))
    with TextPredictor(loaded) as predictor:
        effect = last_words_effect(words, predictor.compare({"prose": windows}, steering)["prose"])
    assert effect is not None
    assert effect.nll == pytest.approx(tuple(float(np.mean(losses)) for losses in expected.values()), rel=1e-6)
