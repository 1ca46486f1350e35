"""Where conditions hold in one sequence, token by token."""

from collections.abc import Callable, Sequence
from copy import copy
from typing import Protocol

from steering_profiles.conditions.code_blocks import CodeBlockState
from steering_profiles.conditions.condition import Condition
from steering_profiles.conditions.patterns import compiled


class _Reader(Protocol):
    """What it has read is in values that never change, so that a shallow copy reads on by itself."""

    def read(self, index: int, token: int, text: bytes) -> bool:
        """Read the next token, at position ``index`` and with this text; return whether the condition holds there."""
        ...


class ConditionTrace:
    """Where each of several conditions holds in a sequence that grows. Every token is read once.

    The results are kept, since a sequence that was preempted is computed again from its start.
    """

    def __init__(self, conditions: Sequence[Condition], bytes_of: Callable[[int], bytes], prompt_length: int) -> None:
        """Read a sequence whose first ``prompt_length`` tokens are the prompt; ``bytes_of`` is the text of a token."""
        self._readers = [_reader(condition, prompt_length) for condition in conditions]
        self._bytes_of = bytes_of
        self._held: list[int] = []

    def held(self, tokens: Sequence[int], start: int, end: int) -> list[int]:
        """Return which conditions hold at each of the positions ``start..end`` of ``tokens``.

        Each is a number whose bit ``i`` is set where the condition ``i`` holds. ``tokens`` are those of earlier calls
        and more.
        """
        self.read(tokens[len(self._held) : end])
        return self._held[start:end]

    def read(self, tokens: Sequence[int]) -> None:
        """Read the tokens that follow those read so far."""
        for token in tokens:
            self._held.append(self._next(self._readers, len(self._held), token))

    def held_so_far(self, start: int, end: int) -> list[int]:
        """Return which conditions hold at those of the positions ``start..end`` that have been read."""
        return self._held[start:end]

    def held_if(self, tokens: Sequence[int]) -> list[int]:
        """Return which conditions would hold at the next positions if ``tokens`` came there; none of them is kept."""
        readers = [copy(reader) for reader in self._readers]
        return [self._next(readers, index, token) for index, token in enumerate(tokens, len(self._held))]

    def _next(self, readers: Sequence[_Reader], index: int, token: int) -> int:
        text = self._bytes_of(token)
        return sum(reader.read(index, token, text) << i for i, reader in enumerate(readers))


class _LastToken:
    def __init__(self, tokens: Sequence[int]) -> None:
        self._tokens = frozenset(tokens)

    def read(self, index: int, token: int, text: bytes) -> bool:
        return token in self._tokens


class _EndsWith:
    def __init__(self, endings: Sequence[str]) -> None:
        self._endings = tuple(ending.encode() for ending in endings)
        self._longest = max(map(len, self._endings))
        self._tail = b""

    def read(self, index: int, token: int, text: bytes) -> bool:
        self._tail = (self._tail + text)[-self._longest :]
        return self._tail.endswith(self._endings)


class _Matches:
    def __init__(self, pattern: str) -> None:
        self._automaton = compiled(pattern)
        self._state = self._automaton.start

    def read(self, index: int, token: int, text: bytes) -> bool:
        self._state = self._automaton.read(self._state, text)
        return self._state.is_match


class _InsideCodeBlock:
    def __init__(self) -> None:
        self._state = CodeBlockState()

    def read(self, index: int, token: int, text: bytes) -> bool:
        self._state = self._state.read(text)
        return self._state.is_inside


class _From:
    def __init__(self, position: int) -> None:
        self._position = position

    def read(self, index: int, token: int, text: bytes) -> bool:
        return index >= self._position


class _At:
    def __init__(self, position: int) -> None:
        self._position = position

    def read(self, index: int, token: int, text: bytes) -> bool:
        return index == self._position


class _Not:
    def __init__(self, reader: _Reader) -> None:
        self._reader = reader

    def __copy__(self) -> "_Not":
        return _Not(copy(self._reader))

    def read(self, index: int, token: int, text: bytes) -> bool:
        return not self._reader.read(index, token, text)


class _Joined:
    def __init__(self, join: Callable[[list[bool]], bool], readers: Sequence[_Reader]) -> None:
        self._join = join
        self._readers = readers

    def __copy__(self) -> "_Joined":
        return _Joined(self._join, [copy(reader) for reader in self._readers])

    def read(self, index: int, token: int, text: bytes) -> bool:
        # All of them read every token, whatever the others say.
        return self._join([reader.read(index, token, text) for reader in self._readers])


def _reader(condition: Condition, prompt_length: int) -> _Reader:
    if condition.last_token is not None:
        return _LastToken(condition.last_token)
    if condition.ends_with is not None:
        return _EndsWith(condition.ends_with)
    if condition.matches is not None:
        return _Matches(condition.matches)
    if condition.inside is not None:
        return _InsideCodeBlock()
    if condition.from_position is not None:
        return _From(condition.from_position)
    if condition.part is not None:
        last = max(prompt_length - 1, 0)
        if condition.part == "last_prompt_token":
            return _At(last)
        return _From(last) if condition.part == "completion" else _Not(_From(last))
    readers = [_reader(one, prompt_length) for one in condition.within]
    return _Not(readers[0]) if condition.not_ is not None else _Joined(all if condition.all_ else any, readers)
