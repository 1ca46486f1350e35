"""Windows of tokens that texts are cut into."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from steering_profiles.evaluation import Window, continuation_window, text_windows
from steering_profiles.evaluation.corpora import fitting_texts, held_out_texts
from steering_profiles.models import LoadedModel, assemble
from tests.builders import CONTEXT, build_model, build_tokenizer

PLAIN = build_model("gpt2")


def with_beginning_of_text() -> LoadedModel:
    """The same model with a tokenizer that adds ``<end>`` before a text."""
    inner = build_tokenizer().backend_tokenizer
    end = inner.token_to_id("<end>")
    inner.post_processor = TemplateProcessing(single="<end> $A", special_tokens=[("<end>", end)])
    tokenizer: Any = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<end>", eos_token="<end>")
    return assemble("tiny-bos", PLAIN.model, tokenizer)


BOS = with_beginning_of_text()


@given(st.text("ab (), \n", max_size=200), st.integers(3, 40))
def test_each_token_is_predicted_once_given_the_one_before(text: str, most: int):
    tokens = PLAIN.tokenizer.encode(text, add_special_tokens=False)
    windows = text_windows(PLAIN, text, most)
    assert [token for window in windows for token in window.predicted] == tokens[1:]
    assert all(len(window.tokens) <= most and window.given == 1 for window in windows)
    before = tokens[:1]
    for window in windows:
        assert list(window.tokens[:1]) == before[-1:]
        before = list(window.tokens)


@given(st.text("ab (), \n", max_size=200), st.integers(3, 40))
def test_a_beginning_of_text_token_starts_each_window_and_lets_the_first_token_be_predicted(text: str, most: int):
    tokens = BOS.tokenizer.encode(text, add_special_tokens=False)
    windows = text_windows(BOS, text, most)
    assert [token for window in windows for token in window.predicted] == tokens
    assert all(window.tokens[0] == BOS.tokenizer.bos_token_id and len(window.tokens) <= most for window in windows)


def test_windows_are_no_longer_than_the_context():
    windows = text_windows(PLAIN, "x" * 3 * CONTEXT, most=10 * CONTEXT)
    assert max(len(window.tokens) for window in windows) == CONTEXT


def test_a_continuation_is_predicted_given_its_prompt():
    window = continuation_window(PLAIN, "def f():\n", "    return 1\n")
    assert PLAIN.tokenizer.decode(window.tokens[: window.given]) == "def f():\n"
    assert PLAIN.tokenizer.decode(window.predicted) == "    return 1\n"


def test_a_token_that_prompt_and_continuation_share_is_predicted():
    """``((`` is one token here, as a line break and the indentation after it are in many tokenizers."""
    window = continuation_window(PLAIN, "print(str)", ")")
    assert PLAIN.tokenizer.decode(window.tokens[: window.given]) == "print(str"
    assert PLAIN.tokenizer.decode(window.predicted) == "))"


def test_a_prompt_too_long_for_the_context_is_cut_at_its_start_and_its_continuation_is_kept():
    window = continuation_window(PLAIN, "x" * CONTEXT + "y", "zzz")
    assert len(window.tokens) == CONTEXT
    assert PLAIN.tokenizer.decode(window.tokens[-5:]) == "xyzzz"
    assert PLAIN.tokenizer.decode(window.predicted) == "zzz"


@pytest.mark.parametrize("given_tokens", [0, 3])
def test_a_window_needs_context_within_itself(given_tokens: int):
    with pytest.raises(ValueError, match=f"given is {given_tokens}; allowed: 1 to 2"):
        Window((1, 2), given_tokens)


def test_held_out_and_fitting_texts_share_no_line_of_substance():
    held_out, fitting = held_out_texts(), fitting_texts()
    assert set(held_out) == set(fitting) == {"prose", "code"}
    assert len(held_out["prose"].split()) > 2500
    assert len(fitting["prose"].split()) > 1400
    assert len(held_out["code"].splitlines()) > 400
    assert len(fitting["code"].splitlines()) > 200
    for kind, text in held_out.items():
        lines = {line.strip() for line in text.splitlines()} & {line.strip() for line in fitting[kind].splitlines()}
        assert {line for line in lines if len(line) > 40} == set()
