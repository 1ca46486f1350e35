"""Items of a response and their events, for text that comes in pieces of any size."""

from collections.abc import Sequence
from itertools import count, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steering_server.api.responses_items import ArmOutput, Output
from steering_server.api.schemas.v1_responses_answer import FunctionCallMade, OutputItem, ResponsesEvent
from steering_server.generation.requests import Chunk, FinishReason
from steering_server.generation.tool_calls import written_call

TEXT = "Sure.\n" + written_call("f", '{"a": 1}') + "\n" + written_call("g", '{"b": "}"}')


def read(pieces: Sequence[str], reason: FinishReason = "stop") -> tuple[list[OutputItem], list[ResponsesEvent]]:
    output = Output(count())
    arm = ArmOutput(output, None, may_call=True)
    events = arm.begin()
    for piece in pieces:
        events += arm.read(Chunk(text=piece), [])
    events += arm.read(Chunk(finish_reason=reason), [])
    return output.objects(ended=True), events


def content(item: OutputItem) -> tuple[str, str, str]:
    text = item.arguments if isinstance(item, FunctionCallMade) else "".join(part.text for part in item.content)
    return item.type, item.status, text


@given(st.lists(st.integers(1, 9), min_size=len(TEXT), max_size=len(TEXT)))
def test_however_a_text_is_cut_its_items_are_the_same(lengths: list[int]):
    ends = [sum(lengths[:i]) for i in range(len(lengths) + 1)]
    items, events = read([TEXT[begin:end] for begin, end in pairwise(ends)])
    assert [content(item) for item in items] == [
        ("message", "completed", "Sure."),
        ("function_call", "completed", '{"a": 1}'),
        ("function_call", "completed", '{"b": "}"}'),
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))


@pytest.mark.parametrize("length", range(0, len(TEXT) + 1, 3))
def test_wherever_a_text_ends_every_item_that_began_ends(length: int):
    items, events = read([TEXT[:length]], "length")
    kinds = [event.type for event in events]
    assert kinds.count("response.output_item.added") == kinds.count("response.output_item.done") == len(items) > 0
    assert {item.status for item in items[:-1]} <= {"completed"}
