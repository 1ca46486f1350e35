"""Automata that read bytes one by one and say after each whether the text so far ends with a match.

Reading takes the same time for every byte, however long the text is: no pattern can make it slow.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from steering_profiles.conditions.characters import Range

MOST_STATES = 500
_MOST_KEPT = 4096
"""Sets of states that are kept, with the bytes that lead from one to another; beyond that they are found again."""


@dataclass
class StateGraph:
    """A nondeterministic automaton under construction. States are numbers; 0 is where a match begins.

    Raises:
        ValueError: it has more than ``MOST_STATES`` states.
    """

    anchored: bool = False
    """Whether a match begins at the start of the text only."""
    steps: list[list[tuple[Range, int]]] = field(default_factory=lambda: [[]])
    """Per state: the bytes that it reads, and the state that each leads to."""
    free: list[list[int]] = field(default_factory=lambda: [[]])
    """Per state: the states that it leads to without reading."""

    def add(self) -> int:
        """Add a state and return it."""
        if len(self.steps) >= MOST_STATES:
            raise ValueError(f"the pattern is too large: it has more than {MOST_STATES} states; repeat fewer times")
        self.steps.append([])
        self.free.append([])
        return len(self.steps) - 1

    def closure(self, states: Iterator[int] | list[int]) -> frozenset[int]:
        """Return ``states`` and all that are reached from them without reading."""
        found, open_ = set(), list(states)
        while open_:
            state = open_.pop()
            if state not in found:
                found.add(state)
                open_.extend(self.free[state])
        return frozenset(found)


class State:
    """A set of states of the graph, after some text."""

    __slots__ = ("is_match", "next", "states")

    def __init__(self, states: frozenset[int], is_match: bool) -> None:
        self.states = states
        self.is_match = is_match
        """Whether the text ends with a match."""
        self.next: dict[int, State] = {}
        """The state after each byte that has been read here before."""


class Automaton:
    """A deterministic automaton whose states are found when a text first leads to them.

    Threads may share it: at worst two of them find the same state.
    """

    def __init__(self, graph: StateGraph, end: int) -> None:
        """Read matches that begin in state 0 of ``graph`` and end in ``end``."""
        self._graph = graph
        self._end = end
        self._begins = graph.closure([0])
        self._kept: dict[frozenset[int], State] = {}
        self.start = State(self._begins, end in self._begins)

    def read(self, state: State, text: bytes) -> State:
        """Return the state after ``text``."""
        for byte in text:
            following = state.next.get(byte)
            if following is None:
                following = state.next[byte] = self._find(state, byte)
            state = following
        return state

    def _find(self, state: State, byte: int) -> State:
        steps = self._graph.steps
        reached = [to for one in state.states for (low, high), to in steps[one] if low <= byte <= high]
        states = self._graph.closure(reached)
        if not self._graph.anchored:
            states |= self._begins
        found = self._kept.get(states)
        if found is None:
            if len(self._kept) >= _MOST_KEPT:
                kept, self._kept = self._kept, {}
                for one in kept.values():
                    one.next = {}
            found = self._kept[states] = State(states, self._end in states)
        return found
