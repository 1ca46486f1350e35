"""A model's tokenizer as a thread-safe service: encodes prompts and conversations, spells tokens."""

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
    """How a single token is written, outside of any text."""

    text: str
    """Readable form; different tokens may have the same."""
    entry: str
    """The token's entry in the vocabulary."""
    raw: bytes
    """The bytes that it adds to a text; empty for a special token."""


class TokenizerService:
    """A tokenizer for any number of threads. Encoding a long prompt does not block those that decode tokens."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", vocabulary: Vocabulary, model: str) -> None:
        """Copy ``tokenizer``; ``model`` is the name used in errors."""
        self._tokenizer = copy.deepcopy(tokenizer)  # a tokenizer is not safe to use in two threads at once
        self._encoding = threading.Lock()
        self._vocabulary = vocabulary
        self._model = model

    def encode(self, text: str) -> tuple[int, ...]:
        """Return the token ids of a prompt."""
        with self._encoding:
            return encode_prompt(self._tokenizer, text)

    def render_chat(
        self, messages: Sequence[Mapping[str, str]], *, begin_turn: bool = True, continue_last: bool = False
    ) -> tuple[int, ...]:
        """Return the token ids of chat messages, rendered by the model's chat template.

        ``begin_turn`` adds the beginning of the assistant's turn; ``continue_last`` ends with the last message's text.

        Raises:
            RequestError: the model has no chat template, or the template rejects these messages or does not render the
                text to be continued.
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
            if continue_last and isinstance(exc, ValueError):  # its message contains the whole conversation
                raise RequestError(
                    "continue_final_message: the model's chat template does not render the last message's text "
                    "unchanged, so it cannot be continued",
                    param="continue_final_message",
                ) from exc
            raise RequestError(f"messages: the model's chat template rejects them: {exc}", param="messages") from exc

    def echo(self, prompt: Sequence[int], *, is_all: bool) -> tuple[TextDelta, ...]:
        """Return the text that each token of a prompt adds; ``is_all`` if nothing is generated after it."""
        return echo(self._vocabulary, prompt, is_all=is_all)

    def spelling(self, token: int) -> Spelling:
        """Return how a single token is written."""
        raw = b"" if self._vocabulary.is_special(token) else self._vocabulary.bytes_of(token)
        return Spelling(self._vocabulary.text_of(token), self._vocabulary.spelling(token), raw)
