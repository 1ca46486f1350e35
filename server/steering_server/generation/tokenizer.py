"""A model's tokenizer as a thread-safe service: encodes prompts and conversations, spells tokens."""

import copy
import inspect
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import jinja2

from steering_profiles.tokenization import Vocabulary, encode_prompt
from steering_server.errors import RequestError
from steering_server.generation.detokenizer import echo
from steering_server.generation.requests import TextDelta
from steering_server.generation.tool_calls import OPENING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_REJECTIONS = (jinja2.TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What a template raises for messages or variables that it does not expect."""


@dataclass(frozen=True)
class Spelling:
    """Spelling of a single token outside of any text."""

    text: str
    """Readable form; different tokens may have the same."""
    entry: str
    """The token's entry in the vocabulary."""
    raw: bytes
    """The bytes that it adds to a text; empty for a special token."""


@dataclass(frozen=True)
class TokenizerFacts:
    """Facts about a tokenizer for clients: its special tokens, None where it has none, and its chat template."""

    class_name: str
    bos: str | None
    eos: str | None
    pad: str | None
    unknown: str | None
    chat_template: str | None


class TokenizerService:
    """A tokenizer for any number of threads. Encoding a long prompt does not block those that decode tokens."""

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        vocabulary: Vocabulary,
        model: str,
        *,
        max_characters: int | None = None,
    ) -> None:
        """Copy ``tokenizer``; ``model`` is the name used in errors.

        Texts of more than ``max_characters`` are refused: one text is encoded at a time, and others would wait.
        """
        self._tokenizer = copy.deepcopy(tokenizer)  # a tokenizer is not safe to use in two threads at once
        self._encoding = threading.Lock()
        self._vocabulary = vocabulary
        self._model = model
        self._max_characters = max_characters

    @property
    def facts(self) -> TokenizerFacts:
        """Facts about the tokenizer for clients."""
        tokenizer, template = self._tokenizer, self._tokenizer.chat_template
        return TokenizerFacts(
            class_name=type(tokenizer).__name__,
            bos=tokenizer.bos_token,
            eos=tokenizer.eos_token,
            pad=tokenizer.pad_token,
            unknown=tokenizer.unk_token,
            chat_template=template if isinstance(template, str) else None,
        )

    def encode(self, text: str, *, add_special: bool = True, param: str = "prompt") -> tuple[int, ...]:
        """Return the token ids of a prompt, with those that the tokenizer adds before a text if ``add_special``.

        Raises:
            RequestError: the text, given by the field ``param``, is too long.
        """
        self._require_short(len(text), param)
        with self._encoding:
            if add_special:
                return encode_prompt(self._tokenizer, text)
            return tuple(self._tokenizer.encode(text, add_special_tokens=False))

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of ``tokens``, which are in the vocabulary; special tokens are spelled out."""
        with self._encoding:
            return str(
                self._tokenizer.decode(list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False)
            )

    def render_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        begin_turn: bool = True,
        continue_last: bool = False,
        add_special: bool = False,
        variables: Mapping[str, Any] | None = None,
        param: str = "messages",
    ) -> tuple[int, ...]:
        """Return the token ids of chat messages, rendered by the model's chat template.

        ``tools`` are passed to the template; ``begin_turn`` adds the beginning of the assistant's turn;
        ``continue_last`` ends with the last message's text; ``add_special`` adds the tokens that the tokenizer puts
        before a text, besides those of the template; the template can read the ``variables``, the request's
        ``chat_template_kwargs``; errors name the field ``param``.

        Raises:
            RequestError: the model has no chat template, the text is too long, or the template rejects these messages
                or does not render the text to be continued, or a variable has the name of one that the server sets.
        """
        if not self._tokenizer.chat_template:
            raise RequestError(f"model {self._model} has no chat template; use /v1/completions", param=param)
        for name in variables or ():
            if name in self._set_by_server:
                raise RequestError(
                    f"chat_template_kwargs: {name} is set by the server; the request's own fields change what it sets",
                    param="chat_template_kwargs",
                )
        self._require_short(
            sum(len(value) for message in messages for value in message.values() if isinstance(value, str)), param
        )
        try:
            with self._encoding:
                text = self._tokenizer.apply_chat_template(
                    [dict(message) for message in messages],
                    tools=None if tools is None else [dict(tool) for tool in tools],
                    tokenize=False,
                    add_generation_prompt=begin_turn,
                    continue_final_message=continue_last,
                    **(variables or {}),
                )
            return self.encode(str(text), add_special=add_special, param=param)
        except _REJECTIONS as exc:
            if continue_last and isinstance(exc, ValueError):  # its message contains the whole conversation
                raise RequestError(
                    "continue_final_message: the model's chat template does not render the last message's text "
                    "unchanged, so it cannot be continued",
                    param="continue_final_message",
                ) from exc
            raise RequestError(f"{param}: the model's chat template rejects them: {exc}", param=param) from exc

    def _require_short(self, characters: int, param: str) -> None:
        if self._max_characters is not None and characters > self._max_characters:
            raise RequestError(
                f"{param}: {characters} characters are too many; this model takes at most {self._max_characters}",
                param=param,
                code="context_length_exceeded",
            )

    @cached_property
    def _set_by_server(self) -> frozenset[str]:
        """Names of what is passed to the template, or says how it is rendered."""
        return frozenset(inspect.signature(self._tokenizer.apply_chat_template).parameters) | {"messages"}

    @property
    def template_writes_calls(self) -> bool:
        """Whether the model's chat template knows tools, and writes calls in the format of :mod:`.tool_calls`."""
        template = str(self._tokenizer.chat_template)
        return all(part in template for part in ("tools", "arguments", OPENING)) and "<function=" not in template

    def template_reads(self, field: str) -> bool:
        """Return whether the model's chat template reads ``field`` of messages, as far as its source shows."""
        return bool(re.search(rf"""\.{field}\b|['"]{field}['"]""", str(self._tokenizer.chat_template)))

    def template_names(self, variable: str) -> bool:
        """Return whether the model's chat template has the name ``variable``, as far as its source shows."""
        return bool(re.search(rf"\b{re.escape(variable)}\b", str(self._tokenizer.chat_template)))

    def echo(self, prompt: Sequence[int], *, is_all: bool) -> tuple[TextDelta, ...]:
        """Return the text that each token of a prompt adds; ``is_all`` if nothing is generated after it."""
        return echo(self._vocabulary, prompt, is_all=is_all)

    def spelling(self, token: int) -> Spelling:
        """Return how a single token is written."""
        raw = b"" if self._vocabulary.is_special(token) else self._vocabulary.bytes_of(token)
        return Spelling(self._vocabulary.text_of(token), self._vocabulary.spelling(token), raw)
