"""Server-sent events, out of bytes as they arrive. Does no input or output itself.

Follows the event stream interpretation of the HTML standard, as far as the ``data`` field goes.
"""

import codecs


class EventDecoder:
    """Turns pieces of an event stream, cut anywhere, into the data of its events."""

    def __init__(self) -> None:
        self._text = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._line = ""
        self._after_return = False
        self._data: list[str] = []

    def feed(self, piece: bytes) -> list[str]:
        """Return the data of the events that ``piece`` completes."""
        events = []
        for character in self._text.decode(piece):
            # A line ends with CR, LF or both; the LF of a pair ends nothing a second time.
            if character == "\n" and self._after_return:
                self._after_return = False
                continue
            self._after_return = character == "\r"
            if character not in "\r\n":
                self._line += character
                continue
            line, self._line = self._line, ""
            if line:
                self._take(line)
            elif self._data:
                events.append("\n".join(self._data))
                self._data = []
        return events

    def _take(self, line: str) -> None:
        field, _, value = line.partition(":")
        if field == "data":
            self._data.append(value.removeprefix(" "))
