"""Calls in generated text are read as they are written, however the text is cut."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steering_server.generation.tool_calls import CallArguments, CallReader, CallStart, Part, TextPart, written_call

ARGUMENTS = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=12), st.just("}\n</tool_call>")),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
    max_leaves=5,
)
CALLS = st.lists(
    st.tuples(st.sampled_from(["f", "get_weather", "a.b-c"]), st.dictionaries(st.text(max_size=4), ARGUMENTS)),
    max_size=3,
)
TEXTS = st.text(max_size=20).filter(lambda text: "<tool_call>" not in text)


def read(pieces: list[str]) -> list[Part]:
    reader = CallReader()
    return [part for piece in pieces for part in reader.read(piece)] + reader.finish()


def joined(parts: list[Part]) -> tuple[str, list[tuple[str, str]]]:
    """The text and the calls of ``parts``."""
    text, calls = "", list[tuple[str, str]]()
    for part in parts:
        if isinstance(part, TextPart):
            text += part.text
        elif isinstance(part, CallStart):
            assert part.index == len(calls)
            calls.append((part.name, ""))
        elif isinstance(part, CallArguments):
            assert part.index == len(calls) - 1
            calls[-1] = (calls[-1][0], calls[-1][1] + part.text)
    return text, calls


def cut(text: str, places: list[int]) -> list[str]:
    edges = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    return [text[a:b] for a, b in pairwise(edges)]


@given(TEXTS, CALLS, st.lists(st.integers(0, 10_000), max_size=40))
def test_text_and_calls_are_read_however_they_are_cut(text, calls, places):
    written = "\n".join(written_call(name, json.dumps(arguments, indent=2)) for name, arguments in calls)
    found_text, found_calls = joined(read(cut(text + written, places)))
    assert found_text == (text.rstrip() if calls else text)
    assert [(name, json.loads(arguments)) for name, arguments in found_calls] == calls


def test_text_that_looks_like_the_beginning_of_a_call_is_held_back_and_given_at_the_end():
    reader = CallReader()
    assert reader.read("a <tool_c") == [TextPart("a")]
    assert reader.read("at> b") == [TextPart(" <tool_cat> b")]
    assert reader.read(" <tool") == []
    assert reader.finish() == [TextPart(" <tool")]
    assert not reader.has_calls


def test_arguments_are_given_while_they_are_written():
    reader = CallReader()
    assert reader.read('<tool_call>\n{"name": "f", "arguments": {"a": [1') == [
        CallStart(0, "f"),
        CallArguments(0, '{"a": [1'),
    ]
    assert reader.is_within_call
    assert reader.read(", 2]}}\n</tool_") == [CallArguments(0, ", 2]}")]
    assert reader.read("call>") == []
    assert not reader.is_within_call


@pytest.mark.parametrize(
    ("written", "text", "calls"),
    [
        ('<tool_call>\n{"na', '<tool_call>\n{"na', []),
        ('<tool_call>\n{"name": "f", "arguments": {"a": "x}', "", [("f", '{"a": "x}')]),
        ("  ", "  ", []),
    ],
    ids=["in the name", "in the arguments", "white space only"],
)
def test_nothing_is_lost_where_a_text_is_cut_off(written, text, calls):
    assert joined(read([written])) == (text, calls)


@pytest.mark.parametrize("arguments", ['{"a": {"b": 1}\n}', "{}", '{"a": "}\\n"}'])
def test_wherever_a_call_is_cut_off_its_arguments_begin_like_the_whole_ones(arguments):
    written = written_call("f", arguments)
    for length in range(written.index("arguments") + len('arguments": '), len(written)):
        (_, ((_, found),)) = joined(read([written[:length]]))
        assert arguments.startswith(found)
        if length > written.index(arguments) + len(arguments):
            assert found == arguments
