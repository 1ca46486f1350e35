"""Items of the output of ``POST /v1/responses``, and the events that tell of them while they are generated."""

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from steering_server.api.schemas.responses import ChatTokenLogprob
from steering_server.api.schemas.v1_responses_answer import (
    ArgumentsDeltaEvent,
    ArgumentsDoneEvent,
    ContentPartEvent,
    FunctionCallMade,
    ItemStatus,
    OutputItem,
    OutputItemEvent,
    OutputMessage,
    OutputText,
    ResponsesEvent,
    TextDeltaEvent,
    TextDoneEvent,
)
from steering_server.generation.requests import Chunk
from steering_server.generation.tool_calls import CallReader, CallStart, Part, TextPart


@dataclass
class Message:
    """A message that is being generated."""

    arm: str | None
    place: int
    """Its index in the output."""
    status: ItemStatus = "in_progress"
    id: str = field(default_factory=lambda: f"msg_{uuid.uuid4().hex}")
    texts: list[str] = field(default_factory=list)
    logprobs: list[ChatTokenLogprob] = field(default_factory=list)

    @property
    def part(self) -> OutputText:
        """The text so far."""
        return OutputText(text="".join(self.texts), logprobs=self.logprobs)

    def object(self) -> OutputMessage:
        """Return the message as it is so far."""
        content = [] if self.status == "in_progress" else [self.part]
        return OutputMessage(id=self.id, status=self.status, content=content, arm=self.arm)


@dataclass
class Call:
    """A call that is being generated."""

    arm: str | None
    place: int
    name: str
    status: ItemStatus = "in_progress"
    id: str = field(default_factory=lambda: f"fc_{uuid.uuid4().hex}")
    call_id: str = field(default_factory=lambda: f"call_{uuid.uuid4().hex}")
    pieces: list[str] = field(default_factory=list)

    @property
    def arguments(self) -> str:
        """The arguments so far."""
        return "".join(self.pieces)

    def object(self) -> FunctionCallMade:
        """Return the call as it is so far."""
        return FunctionCallMade(
            id=self.id,
            status=self.status,
            call_id=self.call_id,
            name=self.name,
            arguments=self.arguments,
            arm=self.arm,
        )


class Output:
    """The output of one response: the items of all arms, in the order in which they began."""

    def __init__(self, numbers: Iterator[int]) -> None:
        """Begin an output; ``numbers`` are those of the events."""
        self.numbers = numbers
        self._items: list[Message | Call] = []

    @property
    def length(self) -> int:
        """The number of items that have begun."""
        return len(self._items)

    def begin(self, item: Message | Call) -> list[ResponsesEvent]:
        """Add an item, whose place is the end; return the event."""
        self._items.append(item)
        return [self._item("response.output_item.added", item)]

    def end(self, item: Message | Call) -> list[ResponsesEvent]:
        """Return the event for an item that has ended."""
        return [self._item("response.output_item.done", item)]

    def objects(self, *, ended: bool) -> list[OutputItem]:
        """Return all items; those that have not ended are incomplete if the response has ``ended``."""
        if ended:
            for item in self._items:
                item.status = "incomplete" if item.status == "in_progress" else item.status
        return [item.object() for item in self._items]

    def _item(
        self, kind: Literal["response.output_item.added", "response.output_item.done"], item: Message | Call
    ) -> OutputItemEvent:
        return OutputItemEvent(
            type=kind, sequence_number=next(self.numbers), output_index=item.place, item=item.object()
        )


class ArmOutput:
    """What one arm adds to the output: a message, and with functions also calls."""

    def __init__(self, output: Output, arm: str | None, *, may_call: bool) -> None:
        self._output = output
        self._arm = arm
        self._reader = CallReader() if may_call else None
        self._open: Message | Call | None = None
        self._has_items = False
        self._waiting: list[ChatTokenLogprob] = []
        """Log-probabilities of tokens that may turn out to be part of a call; those of calls are not returned."""
        self.is_complete = False
        """Whether the model ended its output by itself."""

    def begin(self) -> list[ResponsesEvent]:
        """Return the first events: those of a message, unless the arm may call a function instead."""
        return self._begin_message() if self._reader is None else []

    def read(self, chunk: Chunk, logprobs: Sequence[ChatTokenLogprob]) -> list[ResponsesEvent]:
        """Return the events for a chunk with these log-probabilities."""
        self._waiting.extend(logprobs)
        events: list[ResponsesEvent] = []
        for part in self._parts(chunk):
            if isinstance(part, TextPart):
                events += self._text(part.text)
            elif isinstance(part, CallStart):
                events += self._begin_call(part.name)
            elif isinstance(self._open, Call):
                events += self._arguments(self._open, part.text)
        if isinstance(self._open, Call) and not (self._reader and self._reader.is_within_call):
            events += self._end("completed")
        if chunk.finish_reason is not None:
            self.is_complete = chunk.finish_reason == "stop"
            if not self._has_items or (self._waiting and isinstance(self._open, Message)):
                events += self._text("")
            events += self._end("completed" if self.is_complete else "incomplete")
        return events

    def _parts(self, chunk: Chunk) -> list[Part]:
        if self._reader is None:
            return [TextPart(chunk.text)] if chunk.text or self._waiting else []
        return self._reader.read(chunk.text) + (self._reader.finish() if chunk.finish_reason else [])

    def _begin_message(self) -> list[ResponsesEvent]:
        message = Message(self._arm, self._output.length)
        self._open, self._has_items = message, True
        return [
            *self._output.begin(message),
            ContentPartEvent(
                type="response.content_part.added",
                sequence_number=next(self._output.numbers),
                item_id=message.id,
                output_index=message.place,
                part=OutputText(text=""),
            ),
        ]

    def _text(self, text: str) -> list[ResponsesEvent]:
        events: list[ResponsesEvent] = []
        if not isinstance(self._open, Message):
            events += self._end("completed")
            events += self._begin_message()
        message = self._open
        assert isinstance(message, Message)
        logprobs, self._waiting = self._waiting, []
        message.texts.append(text)
        message.logprobs += logprobs
        if text or logprobs:
            events.append(
                TextDeltaEvent(
                    sequence_number=next(self._output.numbers),
                    item_id=message.id,
                    output_index=message.place,
                    delta=text,
                    logprobs=logprobs,
                )
            )
        return events

    def _begin_call(self, name: str) -> list[ResponsesEvent]:
        events = self._end("completed")
        self._waiting.clear()
        self._open, self._has_items = Call(self._arm, self._output.length, name), True
        return [*events, *self._output.begin(self._open)]

    def _arguments(self, call: Call, piece: str) -> list[ResponsesEvent]:
        self._waiting.clear()
        call.pieces.append(piece)
        return [
            ArgumentsDeltaEvent(
                sequence_number=next(self._output.numbers), item_id=call.id, output_index=call.place, delta=piece
            )
        ]

    def _end(self, status: Literal["completed", "incomplete"]) -> list[ResponsesEvent]:
        item, self._open = self._open, None
        if item is None:
            return []
        item.status = status
        whole = self._whole_text(item) if isinstance(item, Message) else self._whole_arguments(item)
        return [*whole, *self._output.end(item)]

    def _whole_text(self, message: Message) -> list[ResponsesEvent]:
        part = message.part
        return [
            TextDoneEvent(
                sequence_number=next(self._output.numbers),
                item_id=message.id,
                output_index=message.place,
                text=part.text,
                logprobs=part.logprobs,
            ),
            ContentPartEvent(
                type="response.content_part.done",
                sequence_number=next(self._output.numbers),
                item_id=message.id,
                output_index=message.place,
                part=part,
            ),
        ]

    def _whole_arguments(self, call: Call) -> list[ResponsesEvent]:
        return [
            ArgumentsDoneEvent(
                sequence_number=next(self._output.numbers),
                item_id=call.id,
                output_index=call.place,
                name=call.name,
                arguments=call.arguments,
            )
        ]
