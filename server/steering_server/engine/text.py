"""Tokens to text, as they come: whole characters only, ending before the first stop string."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from steering_server.engine.requests import Chunk, FinishReason, TokenLogprob

_CONTEXT_TOKENS = 6
"""Tokens decoded before a new one, since a tokenizer may write it differently at the start of a text."""
_LONGEST_CHARACTER = 8
"""Tokens after which bytes that still make no character are given out as U+FFFD."""
_REPLACEMENT = "\ufffd"


@dataclass(frozen=True)
class _Held:
    token: int
    start: int
    logprob: TokenLogprob | None


class TextStream:
    """The text of one sequence.

    The text given out over all chunks is the same however the tokens are spread over them, so that a streamed and an
    unstreamed answer agree.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], prompt: Sequence[int], stop: Sequence[str]) -> None:
        self._decode = decode
        self._stop = tuple(stop)
        self._window = list(prompt[-_CONTEXT_TOKENS:])
        self._read = len(self._window)
        self._text = ""
        self._released = 0
        self._held: list[_Held] = []

    def push(self, token: int, logprob: TokenLogprob | None) -> Chunk:
        """Add a token; return what can be given out, with ``finish_reason`` "stop" if a stop string is complete."""
        self._held.append(_Held(token, len(self._text), logprob))
        self._window.append(token)
        self._text += self._new_text(flush=False)
        end = self._stop_position()
        if end is not None:
            self._text = self._text[:end]
            self._held = [held for held in self._held if held.start < end]
            return self._release(end, "stop")
        return self._release(len(self._text) - self._held_back())

    def finish(self, reason: FinishReason) -> Chunk:
        """Give out all that was held back; nothing more comes."""
        self._text += self._new_text(flush=True)
        end = self._stop_position()
        if end is not None:
            self._text, reason = self._text[:end], "stop"
        return self._release(len(self._text), reason)

    def _new_text(self, *, flush: bool) -> str:
        before = self._decode(self._window[: self._read])
        after = self._decode(self._window)
        waiting = len(self._window) - self._read
        if after.endswith(_REPLACEMENT) and waiting < _LONGEST_CHARACTER and not flush:
            return ""
        self._window = self._window[max(0, self._read - _CONTEXT_TOKENS) :] if waiting else self._window
        self._read = len(self._window)
        return after[len(before) :]

    def _stop_position(self) -> int | None:
        found = [at for stop in self._stop if (at := self._text.find(stop, self._released)) >= 0]
        return min(found, default=None)

    def _held_back(self) -> int:
        """Length of the longest end of the text that may become a stop string."""
        longest = max((len(stop) - 1 for stop in self._stop), default=0)
        for length in range(min(longest, len(self._text) - self._released), 0, -1):
            tail = self._text[-length:]
            if any(stop.startswith(tail) for stop in self._stop):
                return length
        return 0

    def _release(self, end: int, reason: FinishReason | None = None) -> Chunk:
        text = self._text[self._released : end]
        self._released = end
        ready = [held for held in self._held if reason or held.start < end]
        self._held = self._held[len(ready) :]
        return Chunk(
            text=text,
            tokens=tuple(held.token for held in ready),
            offsets=tuple(held.start for held in ready),
            logprobs=tuple(held.logprob for held in ready if held.logprob is not None),
            finish_reason=reason,
        )
