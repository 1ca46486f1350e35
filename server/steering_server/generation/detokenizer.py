"""Incremental detokenization: whole characters only, and no text from the first stop string on."""

import codecs
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby, takewhile

from steering_profiles.tokenization import Vocabulary
from steering_server.generation.requests import Chunk, FinishReason, TextDelta, TokenLogprob

_LONGEST_CHARACTER = 4
"""Number of bytes of the longest character in UTF-8."""
_REPLACE_EACH = "steering_server.replace-each"
codecs.register_error(_REPLACE_EACH, lambda exc: ("\ufffd" * (exc.end - exc.start), exc.end))  # type: ignore[attr-defined]


class IncrementalDetokenizer:
    """Turns tokens, one after another, into the text that each adds.

    A character that consists of several tokens is added by the last of them. The deltas and :meth:`rest`, concatenated,
    are the decoded bytes of all tokens.
    """

    def __init__(self, vocabulary: Vocabulary, *, spells_special: bool) -> None:
        """Begin a text. With ``spells_special``, special tokens add their spelling; otherwise they add nothing."""
        self._vocabulary = vocabulary
        self._spells_special = spells_special
        self._errors = _REPLACE_EACH if vocabulary.replaces_each_byte else "replace"
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors=self._errors)
        self._has_begun = False
        self._unwanted = ""

    @classmethod
    def after(cls, vocabulary: Vocabulary, prompt: Sequence[int], *, echoes: bool) -> "IncrementalDetokenizer":
        """Return a detokenizer of the text after ``prompt``, which may end inside a character.

        A character that is completed is added whole. Bytes of the prompt that are never completed are added only if the
        text ``echoes`` the prompt.
        """
        reader = cls(vocabulary, spells_special=False)
        written = prompt[len(vocabulary.opening) :] if _opens(vocabulary, prompt) else prompt
        reader._has_begun = bool(written)
        end = b""
        for token in reversed(written):
            end = vocabulary.bytes_of(token) + end
            if len(end) >= _LONGEST_CHARACTER or vocabulary.is_special(token):
                break
        reader._decoder.decode(end)
        if not echoes:
            reader._unwanted = reader._decoder.getstate()[0].decode(errors=reader._errors)
        return reader

    @property
    def unfinished(self) -> int:
        """Number of bytes, at the end of the tokens so far, of a character that is not complete."""
        return len(self._decoder.getstate()[0])

    def read(self, token: int) -> TextDelta:
        """Return the text that ``token`` adds, and its bytes."""
        if self._vocabulary.is_special(token) and not self._spells_special:
            return TextDelta()
        raw = self._vocabulary.bytes_of(token)
        if raw and not self._has_begun:
            self._has_begun = True
            raw = self._vocabulary.bytes_at_start(token)
        return TextDelta(self._wanted(self._decoder.decode(raw)), raw)

    def rest(self) -> str:
        """Return U+FFFD for bytes at the end that are not a whole character, or nothing."""
        return self._wanted(self._decoder.decode(b"", final=True))

    def _wanted(self, text: str) -> str:
        if not text or not self._unwanted:
            return text
        unwanted, self._unwanted = self._unwanted, ""
        return text.removeprefix(unwanted)


def echo(vocabulary: Vocabulary, prompt: Sequence[int], *, is_all: bool) -> tuple[TextDelta, ...]:
    """Return the text that each token of a prompt adds. Tokens that the tokenizer puts before any text add nothing.

    A character that the prompt does not complete belongs to the generated text, unless the prompt ``is_all``.
    """
    opening = len(vocabulary.opening) if _opens(vocabulary, prompt) else 0
    reader = IncrementalDetokenizer(vocabulary, spells_special=True)
    deltas = [TextDelta()] * opening + [reader.read(token) for token in prompt[opening:]]
    if is_all and reader.unfinished:
        deltas[-1] = replace(deltas[-1], text=deltas[-1].text + reader.rest())
    if vocabulary.replaces_each_byte:
        _replace_runs(vocabulary, prompt, deltas, is_all=is_all)
    return tuple(deltas)


def _replace_runs(vocabulary: Vocabulary, prompt: Sequence[int], deltas: list[TextDelta], *, is_all: bool) -> None:
    """Replace every byte by U+FFFD in runs of byte tokens that are not valid UTF-8, as tokenizers do.

    A run at the end is left alone unless the prompt ``is_all``, since generated tokens may complete it.
    """
    for is_byte, group in groupby(range(len(prompt)), key=lambda place: vocabulary.is_byte(prompt[place])):
        places = list(group)
        if not is_byte or (places[-1] == len(prompt) - 1 and not is_all):
            continue
        try:
            b"".join(vocabulary.bytes_of(prompt[place]) for place in places).decode()
        except UnicodeDecodeError:
            for place in places:
                deltas[place] = replace(deltas[place], text="\ufffd")
            following = places[-1] + 1
            if following < len(deltas):  # its text begins with the rest of the run
                raw = deltas[following].raw
                deltas[following] = replace(deltas[following], text=raw.decode(errors="replace"))


@dataclass(frozen=True)
class _Held:
    token: int
    delta: TextDelta
    start: int
    logprob: TokenLogprob | None
    unfinished: int = 0
    """Number of bytes, of this and earlier tokens, of a character that a later token adds."""

    @property
    def end(self) -> int:
        return self.start + len(self.delta.text)

    def is_within(self, end: int) -> bool:
        """Return whether all characters that the token is part of lie before ``end``."""
        return self.end + bool(self.unfinished) <= end

    def before(self, end: int) -> "_Held":
        """Return the token with its text cut at ``end``, and with the bytes of that text."""
        if self.is_within(end):
            return self
        length = max(0, end - self.start)
        text, rest = self.delta.text[:length], self.delta.text[length:]
        raw = self.delta.raw[: max(0, len(self.delta.raw) - len(rest.encode()) - self.unfinished)]
        return replace(self, delta=TextDelta(text, text.encode() if "\ufffd" in self.delta.text else raw))


class TextStream:
    """The generated text of one sequence.

    The text over all chunks does not depend on how tokens are distributed over them, so streamed and unstreamed answers
    agree. Every token comes with the text that it adds; tokens after the end of the text add nothing.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        prompt: Sequence[int],
        stop: Sequence[str] = (),
        *,
        min_tokens: int = 0,
        echoes: bool = False,
    ) -> None:
        """Begin after ``prompt``. A stop string that begins within the first ``min_tokens`` tokens is ignored.

        See :meth:`IncrementalDetokenizer.after` for ``echoes``.
        """
        self._reader = IncrementalDetokenizer.after(vocabulary, prompt, echoes=echoes)
        self._stop = tuple(stop)
        self._least = min_tokens
        self._pushed = 0
        self._text = ""
        self._kept = 0
        self._released = 0
        self._held: list[_Held] = []

    def push(self, token: int, logprob: TokenLogprob | None) -> Chunk:
        """Add a token; return the text that can be released, with finish reason "stop" after a complete stop string."""
        self._hold(token, self._reader.read(token), logprob)
        if self._pushed <= self._least:
            self._kept = len(self._text)
        end = self._stop_position()
        if end is not None:
            return self._end_at(end, "stop")
        return self._release(len(self._text) - self._held_back())

    def end(self, token: int, logprob: TokenLogprob | None) -> Chunk:
        """Add the token that ends the text, which adds no text; release everything held back."""
        self._add_rest()
        self._hold(token, TextDelta(self._reader.rest()), logprob)
        return self.finish("stop")

    def finish(self, reason: FinishReason) -> Chunk:
        """Release everything held back, at the end of the text."""
        self._add_rest()
        end = self._stop_position()
        return self._end_at(len(self._text) if end is None else end, reason if end is None else "stop")

    def _hold(self, token: int, delta: TextDelta, logprob: TokenLogprob | None) -> None:
        self._held.append(_Held(token, delta, len(self._text), logprob, self._reader.unfinished))
        self._text += delta.text
        self._pushed += 1

    def _add_rest(self) -> None:
        """Add the text for an incomplete character to the last token, unless that has been released."""
        if self._held and self._reader.unfinished:
            last, rest = self._held[-1], self._reader.rest()
            self._held[-1] = replace(last, delta=replace(last.delta, text=last.delta.text + rest))
            self._text += rest

    def _stop_position(self) -> int | None:
        start = max(self._released, self._kept)
        found = [at for stop in self._stop if (at := self._text.find(stop, start)) >= 0]
        return min(found, default=None)

    def _held_back(self) -> int:
        """Return the length of the longest end of the text that may become a stop string."""
        longest = max((len(stop) - 1 for stop in self._stop), default=0)
        for length in range(min(longest, len(self._text) - max(self._released, self._kept)), 0, -1):
            tail = self._text[-length:]
            if any(stop.startswith(tail) for stop in self._stop):
                return length
        return 0

    def _end_at(self, end: int, reason: FinishReason) -> Chunk:
        if end < len(self._text):
            self._text = self._text[:end]
            self._held = [held.before(end) for held in self._held]
        return self._release(end, reason)

    def _release(self, end: int, reason: FinishReason | None = None) -> Chunk:
        """Release the tokens whose text lies before ``end``, or all of them if there is a ``reason``, and that text."""
        ready = self._held if reason else list(takewhile(lambda held: held.is_within(end), self._held))
        self._held = self._held[len(ready) :]
        self._released = len(self._text) if reason else (ready[-1].end if ready else self._released)
        return Chunk(
            text="".join(held.delta.text for held in ready),
            tokens=tuple(held.token for held in ready),
            deltas=tuple(held.delta for held in ready),
            logprobs=tuple(held.logprob for held in ready if held.logprob is not None),
            finish_reason=reason,
        )


def _opens(vocabulary: Vocabulary, prompt: Sequence[int]) -> bool:
    return tuple(prompt[: len(vocabulary.opening)]) == vocabulary.opening
