"""Server-sent events as bytes."""

from pydantic import BaseModel

from steering_server.api.schemas.responses import Envelope
from steering_server.api.schemas.v1_responses_answer import ResponsesEvent

DONE = b"data: [DONE]\n\n"
"""The last event of a stream without errors."""

_LINE_ENDS = {"\u0085": "\\u0085", "\u2028": "\\u2028", "\u2029": "\\u2029"}
"""Characters at which clients that split text by Unicode's lines would cut an event, and how JSON may write them."""

_NO_CHOICES = '"choices":[]'  # not part of any string in JSON, where quotation marks are escaped


class EventEncoder:
    """Encodes the events of one stream.

    Chunks differ in their choices only. What is around those, with the description of the steering several times as
    long, is formatted once.
    """

    def __init__(self) -> None:
        self._around: tuple[str, str] | None = None

    def __call__(self, body: BaseModel) -> bytes:
        """Return ``body`` as an event. Lines end as in OpenAI's streams; not all clients handle CRLF."""
        name = f"event: {body.type}\n" if isinstance(body, ResponsesEvent) else ""
        data = self._json(body)
        if not data.isascii():
            for character, escaped in _LINE_ENDS.items():
                data = data.replace(character, escaped)
        return f"{name}data: {data}\n\n".encode()

    def _json(self, body: BaseModel) -> str:
        if not isinstance(body, Envelope) or not body.is_plain:
            return body.model_dump_json()
        if self._around is None:
            before, _, after = body.model_copy(update={"choices": []}).model_dump_json().partition(_NO_CHOICES)
            self._around = f'{before}"choices":[', f"]{after}"
        before, after = self._around
        return before + ",".join(choice.model_dump_json() for choice in body.choices) + after
