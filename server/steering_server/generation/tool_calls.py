"""The format of tool calls in generated text: how the model is told of it, enforced, and read.

A call is ``<tool_call>``, a JSON object with name and arguments, and ``</tool_call>``, each on a line of its own, as in
Hermes' and Qwen's chat templates. The white space of the JSON is fixed, so that a call can be read while it is written.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from steering_server.generation.grammars import json_rule, literal

OPENING = "<tool_call>"
_NAME = '\n{"name": "'
_ARGUMENTS = '", "arguments": '
_CLOSING = "}\n</tool_call>"
_SEPARATOR = "\n"


@dataclass(frozen=True)
class Function:
    """A function that may be called, with the enforceable schema of its arguments."""

    name: str
    parameters: Mapping[str, Any]


def call_rules(functions: Sequence[Function], *, required: bool, several: bool, text: str | None = None) -> str:
    """Return the rules of texts that call ``functions``, at least once if ``required``, more than once if ``several``.

    Without a call, the text is any one, or one that follows the expression ``text``.
    """
    calls = " | ".join(f"{literal(one.name + _ARGUMENTS)} {json_rule(one.parameters)}" for one in functions)
    more = f"({literal(_SEPARATOR + OPENING)} call)*" if several else ""
    call = f"call: {literal(_NAME)} ({calls}) {literal(_CLOSING)}\n"
    begins_with_call = f"{literal(OPENING)} call {more}"
    if required:
        return f"start: {begins_with_call}\n{call}"
    if text is not None:
        return f"start: {text} | {begins_with_call}\n{call}"
    # The lazy rule matches as soon as a call begins, so that no other text goes on after that.
    free = f"TEXT: /(.|\\n)*/\ntext_and_opening[lazy]: /(.|\\n)*{OPENING}/\n"
    return f"start: TEXT | text_and_opening call {more}\n{free}{call}"


def instructions(tools: Sequence[Mapping[str, Any]]) -> str:
    """Return the text that tells a model of ``tools``, for chat templates that have none of their own."""
    described = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
    example = written_call("<function-name>", "<arguments-as-json-object>")
    return (
        "# Tools\n\nYou may call one or more functions to help the user. Their signatures are in <tools></tools>:\n"
        f"<tools>\n{described}\n</tools>\n\n"
        f"For each call, write its name and arguments as a JSON object in <tool_call></tool_call>:\n{example}"
    )


def written_call(name: str, arguments: str) -> str:
    """Return a call as the model writes it; ``arguments`` are JSON."""
    return f"{OPENING}{_NAME}{name}{_ARGUMENTS}{arguments}{_CLOSING}"


@dataclass(frozen=True)
class TextPart:
    """Text outside of calls."""

    text: str


@dataclass(frozen=True)
class CallStart:
    """The beginning of a call."""

    index: int
    name: str


@dataclass(frozen=True)
class CallArguments:
    """A piece of a call's arguments."""

    index: int
    text: str


Part = TextPart | CallStart | CallArguments


class CallReader:
    """Reads text with calls piece by piece. All pieces give the same parts, however the text is cut."""

    def __init__(self) -> None:
        self._unread = ""
        self._calls = 0
        self._within: str | None = None
        """Between the calls: None; in one: its part that is expected next to end."""
        self._arguments: list[str] = []
        """The arguments so far of the last call."""

    @property
    def has_calls(self) -> bool:
        """Whether a call has begun."""
        return self._calls > 0

    @property
    def is_within_call(self) -> bool:
        """Whether the last call has not ended."""
        return self._within is not None

    def read(self, text: str) -> list[Part]:
        """Return the parts that are certain after ``text``."""
        self._unread += text
        parts: list[Part] = []
        while True:
            before = len(self._unread), self._within
            parts.extend(self._next())
            if (len(self._unread), self._within) == before:
                return parts

    def finish(self) -> list[Part]:
        """Return what is left at the end of the text: an unfinished call's arguments, or text."""
        rest, self._unread = self._unread, ""
        if self._within == _CLOSING:
            # The text was cut off in what may be the end of the arguments, or the end of the call behind them.
            is_rest_of_arguments = rest and not _is_json("".join(self._arguments))
            return [CallArguments(self._calls - 1, rest)] if is_rest_of_arguments else []
        if self._within is not None:
            return [TextPart(OPENING + rest)]
        return [TextPart(rest)] if rest and not (self.has_calls and rest.isspace()) else []

    def _next(self) -> list[Part]:
        if self._within is None:
            return self._text()
        if self._within == _ARGUMENTS:
            return self._name()
        return self._argument_pieces()

    def _text(self) -> list[Part]:
        text, found, rest = self._unread.partition(OPENING)
        if found:
            self._unread, self._within = rest, _ARGUMENTS
            text = text.rstrip()
        else:
            # A call may follow what is held back: white space, and the beginning of its opening.
            sure = text[: len(text) - _overlap(text, OPENING)].rstrip()
            text, self._unread = sure, text[len(sure) :]
        return [TextPart(text)] if text else []

    def _name(self) -> list[Part]:
        head, found, rest = self._unread.partition(_ARGUMENTS)
        if not found:
            return []
        self._unread, self._within = rest, _CLOSING
        self._calls += 1
        self._arguments = []
        return [CallStart(self._calls - 1, head.removeprefix(_NAME))]

    def _argument_pieces(self) -> list[Part]:
        # JSON has no line break inside of strings, so that the closing is found nowhere else.
        text, found, rest = self._unread.partition(_CLOSING)
        if found:
            self._unread, self._within = rest, None
        else:
            sure = len(text) - _overlap(text, _CLOSING)
            text, self._unread = text[:sure], text[sure:]
        self._arguments.append(text)
        return [CallArguments(self._calls - 1, text)] if text else []


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _overlap(text: str, wanted: str) -> int:
    """Return the length of the longest end of ``text`` with which ``wanted`` begins."""
    return next((n for n in range(min(len(text), len(wanted) - 1), 0, -1) if wanted.startswith(text[-n:])), 0)
