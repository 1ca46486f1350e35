"""A model's tokenizer as a service: prompts and conversations to tokens, tokens to how they are written."""

import copy
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jinja2

from steering_profiles.tokenization import Vocabulary, encode_prompt
from steering_server.errors import RequestError
from steering_server.generation.detokenizer import echo
from steering_server.generation.requests import TextDelta

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Spelling:
    """A token by itself, outside of any text."""

    text: str
    """For people; tokens may read alike."""
    entry: str
    """Its entry in the vocabulary."""
    raw: bytes
    """What it adds to a text; nothing for a special token."""


class TokenizerService:
    """A tokenizer for any number of threads. Encoding a huge prompt holds up nobody who reads tokens."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", vocabulary: Vocabulary, model: str) -> None:
        """Serve the tokenizer of ``model``, which is named in errors."""
        self._tokenizer = copy.deepcopy(tokenizer)  # one is not to be used by two threads at once
        self._encoding = threading.Lock()
        self._vocabulary = vocabulary
        self._model = model

    def encode(self, text: str) -> tuple[int, ...]:
        """Turn a prompt into token ids."""
        with self._encoding:
            return encode_prompt(self._tokenizer, text)

    def render_chat(
        self, messages: Sequence[Mapping[str, str]], *, begin_turn: bool = True, continue_last: bool = False
    ) -> tuple[int, ...]:
        """Turn chat messages into token ids by the model's chat template.

        ``begin_turn`` begins the assistant's turn after them; ``continue_last`` ends with the last message's text.

        Raises:
            RequestError: the model has no chat template, or the template refuses these messages or hides the text that
                is to be continued.
        """
        if not self._tokenizer.chat_template:
            raise RequestError(f"model {self._model} has no chat template; use /v1/completions", param="messages")
        try:
            with self._encoding:
                text = self._tokenizer.apply_chat_template(
                    [dict(message) for message in messages],
                    tokenize=False,
                    add_generation_prompt=begin_turn,
                    continue_final_message=continue_last,
                )
                return tuple(self._tokenizer.encode(str(text), add_special_tokens=False))
        except (jinja2.TemplateError, TypeError, ValueError) as exc:
            if continue_last and isinstance(exc, ValueError):  # whose own text holds the whole conversation
                raise RequestError(
                    "continue_final_message: the model's chat template does not give out the last message's text as it "
                    "is, so it cannot be continued",
                    param="continue_final_message",
                ) from exc
            raise RequestError(f"the model's chat template refuses these messages: {exc}", param="messages") from exc

    def echo(self, prompt: Sequence[int], *, is_all: bool) -> tuple[TextDelta, ...]:
        """Return what each token of a prompt adds to its text; ``is_all``: nothing is generated after it."""
        return echo(self._vocabulary, prompt, is_all=is_all)

    def spelling(self, token: int) -> Spelling:
        """Return how a token is written by itself."""
        raw = b"" if self._vocabulary.is_special(token) else self._vocabulary.bytes_of(token)
        return Spelling(self._vocabulary.text_of(token), self._vocabulary.spelling(token), raw)
