"""Minimal pairs of grammar."""

import hashlib
from difflib import SequenceMatcher

import numpy as np
import pytest
import torch

from steering_profiles.evaluation import TextPredictor
from steering_profiles.evaluation.minimal_pairs import Pair, minimal_pairs, pair_windows, pairs_effects
from steering_profiles.evaluation.minimal_pairs.drawing import Draw
from steering_profiles.evaluation.token_changes import TokenChanges
from steering_profiles.models import EMBEDDED, LoadedModel, load_model
from steering_profiles.source import ModelSource
from steering_profiles.steering import UNSTEERED, Steering
from tests.builders import CONTEXT, build_model, every_effect
from tests.library.running import steered_logits

EVERY = [(name, pair) for name, pairs in minimal_pairs().items() for pair in pairs]


def test_there_are_many_different_pairs_of_many_phenomena():
    assert len(minimal_pairs()) >= 8
    assert all(len(set(pairs)) == len(pairs) >= 40 for pairs in minimal_pairs().values())


def test_they_are_the_same_on_every_machine():
    text = "\n".join(f"{name}\t{pair.good}\t{pair.bad}" for name, pair in EVERY)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "c9a64980c3fd3ccc"


def test_a_draw_uses_all_options_about_as_often():
    drawn = [Draw("some phenomenon", number).one("abcd") for number in range(2000)]
    assert all(440 < drawn.count(letter) < 560 for letter in "abcd")


@pytest.mark.parametrize(("name", "pair"), EVERY[::24])
def test_both_sentences_begin_with_the_same_word_and_end_alike(name: str, pair: Pair):
    good, bad = pair.good.split(), pair.bad.split()
    assert good[0] == bad[0]
    assert pair.good[-1] == pair.bad[-1]
    assert pair.good[0].isupper()


def test_they_differ_in_few_words_and_are_of_about_equal_length():
    for _, pair in EVERY:
        good, bad = pair.good.split(), pair.bad.split()
        assert pair.good != pair.bad
        assert abs(len(good) - len(bad)) <= 1
        same = sum(block.size for block in SequenceMatcher(None, good, bad, autojunk=False).get_matching_blocks())
        assert max(len(good), len(bad)) - same <= 2


def test_no_sentence_is_good_in_one_pair_and_bad_in_another():
    assert not {pair.good for _, pair in EVERY} & {pair.bad for _, pair in EVERY}


def log_probability(loaded: LoadedModel, steering: Steering, sentence: str) -> float:
    """Log-probability of all tokens of a sentence but the first."""
    tokens = torch.tensor([loaded.tokenizer.encode(sentence, add_special_tokens=False)])
    logits = steered_logits(loaded, steering, tokens=tokens)[0, :-1].double()
    return float(logits.log_softmax(dim=-1).gather(-1, tokens[0, 1:, None]).sum())


def test_a_margin_is_the_difference_of_the_sentences_log_probabilities():
    loaded = build_model("gpt2")
    pairs, steering = minimal_pairs()["case of pronouns"][:9], every_effect(loaded)["heads"]
    expected = {
        arm: [log_probability(loaded, arm, pair.good) - log_probability(loaded, arm, pair.bad) for pair in pairs]
        for arm in (UNSTEERED, steering)
    }
    with TextPredictor(loaded) as predictor:
        changes = predictor.compare({"case": pair_windows(loaded, pairs)}, steering)
    effects = pairs_effects(changes)
    assert effects.pooled.margin == pytest.approx(tuple(np.mean(one) for one in expected.values()), rel=1e-6)
    assert effects.pooled.correct == tuple(np.mean(np.array(one) > 0) for one in expected.values())
    assert effects.phenomena[0].name == "case"


def test_what_both_sentences_begin_with_is_not_predicted():
    loaded = build_model("gpt2")
    good, bad = pair_windows(loaded, [Pair("The cats are here.", "The cats is here.")])
    assert loaded.tokenizer.decode(good.tokens[: good.given]) == loaded.tokenizer.decode(bad.tokens[: bad.given])
    assert loaded.tokenizer.decode(good.tokens) == "The cats are here."
    assert good.predicted[0] != bad.predicted[0]


def test_sentences_that_are_too_long_for_the_model_lose_their_beginning():
    loaded = build_model("gpt2")
    windows = pair_windows(loaded, [Pair(f"The {'x' * CONTEXT} are", f"The {'x' * CONTEXT} is")])
    assert all(len(window.tokens) == CONTEXT for window in windows)


def test_effects_are_by_phenomenon_and_pooled():
    def pair(good: float, bad: float) -> list[TokenChanges]:
        """A pair whose good sentence's NLL falls by 1 with steering."""
        return [
            TokenChanges((np.array([one]), np.array([one - down])), (np.ones(1), np.ones(1)), np.ones(1))
            for one, down in ((good, 1.0), (bad, 0.0))
        ]

    effects = pairs_effects({"one": pair(2.0, 1.5) * 8, "other": pair(4.0, 1.0) * 8 + pair(1.0, 4.0) * 8})
    one, other = effects.phenomena
    assert (one.pairs, one.correct, one.margin) == (8, (0.0, 1.0), (-0.5, 0.5))
    assert (other.pairs, other.correct, other.margin) == (16, (0.5, 0.5), (0.0, 1.0))
    assert (effects.pooled.pairs, effects.pooled.correct) == (24, (1 / 3, 2 / 3))
    assert one.correct_interval == (1.0, 1.0)
    assert other.correct_interval == (0.0, 0.0)
    assert other.margin_interval == (1.0, 1.0)


@pytest.mark.slow
def test_the_default_model_prefers_the_good_sentence_of_most_pairs_of_every_phenomenon():
    loaded = load_model(ModelSource(EMBEDDED))
    windows = {name: pair_windows(loaded, pairs) for name, pairs in minimal_pairs().items()}
    with TextPredictor(loaded) as predictor:
        effects = pairs_effects(predictor.compare(windows, UNSTEERED))
    assert effects.pooled.correct[0] > 0.85
    assert min(phenomenon.correct[0] for phenomenon in effects.phenomena) > 0.6
