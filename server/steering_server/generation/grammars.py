"""Grammars that a generated text follows, written in the dialect of Lark that llguidance reads."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from typing import Any

_HEADER = '%llguidance {"no_forcing": true}\n'
"""The model chooses the tokens of text that the grammar leaves no choice about."""
_WHITESPACE = r"\x20|\n[\x20\t]{0,32}"
"""A space, or a line break and indentation. Small models would repeat unlimited white space until the limit."""
_AROUND = {"whitespace_pattern": _WHITESPACE}
_BESIDE_SEPARATORS = {
    "whitespace_flexible": False,
    "item_separator": f"({_WHITESPACE})?,({_WHITESPACE})?",
    "key_separator": f"({_WHITESPACE})?:({_WHITESPACE})?",
}
"""llguidance before 1.8, which vLLM 0.32 requires, repeats the pattern without limit, but not that of a separator."""


@dataclass(frozen=True)
class Grammar:
    """The texts that a sequence may consist of. It ends where its text is one of them."""

    text: str
    """A Lark grammar with the rule ``start``; JSON Schemas follow ``%json``."""
    field: str = field(compare=False)
    """Name of the request's field that it comes from, for errors."""


def json_rule(schema: Mapping[str, Any]) -> str:
    """Return the expression for JSON values that are valid under an enforceable ``schema``."""
    return f"%json {json.dumps({**schema, 'x-guidance': _AROUND if _limits_whitespace() else _BESIDE_SEPARATORS})}"


@cache
def _limits_whitespace() -> bool:
    major, minor, *_ = version("llguidance").split(".")
    return (int(major), int(minor)) >= (1, 8)


def json_grammar(schema: Mapping[str, Any], field: str) -> Grammar:
    """Return the grammar of JSON values that are valid under an enforceable ``schema``."""
    return rules(f"start: {json_rule(schema)}", field)


def regex_grammar(pattern: str, field: str) -> Grammar:
    """Return the grammar of texts that ``pattern`` matches as a whole."""
    escaped = re.sub(
        r"\\[\s\S]|/|\n", lambda found: {"/": r"\/", "\n": r"\n", "\\\n": r"\n"}.get(found[0], found[0]), pattern
    )
    return rules(f"start: /{escaped}/", field)


def choice_grammar(choices: Sequence[str], field: str) -> Grammar:
    """Return the grammar of a few given texts."""
    return rules("start: " + " | ".join(map(literal, choices)), field)


def literal(text: str) -> str:
    """Return the expression for exactly ``text``."""
    return json.dumps(text, ensure_ascii=False)


def rules(text: str, field: str) -> Grammar:
    """Return the grammar given by the rules in ``text``."""
    return Grammar(_HEADER + text, field)
