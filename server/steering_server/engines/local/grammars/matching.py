"""The tokens that a grammar allows next, and their place in the logits."""

from collections.abc import Sequence

import numpy as np
import torch
from llguidance import LLMatcher
from torch import Tensor

from steering_server.errors import GrammarTooComplex


class Matcher:
    """The state of one sequence in its grammar."""

    def __init__(self, matcher: LLMatcher, size: int, end_tokens: frozenset[int], *, may_end: bool) -> None:
        """Begin a text. ``size`` is the number of logits; without ``may_end``, end tokens are not allowed."""
        self._matcher = matcher
        self._size = size
        self._ends = sorted(end_tokens)
        self._may_end = may_end
        self.allowed = torch.empty(0, dtype=torch.bool)
        """Whether each token may come next: ``[vocab]``."""
        self.is_complete = False
        """Whether the text is complete and nothing can be added to it."""
        self._update()

    def push(self, token: int) -> None:
        """Add an allowed token to the text.

        Raises:
            GrammarTooComplex: the tokens allowed next cannot be found within the limits.
        """
        self._matcher.consume_token(token)
        self._update()

    def _update(self) -> None:
        packed = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        if self._matcher.is_error():
            raise GrammarTooComplex(
                "the grammar or schema has become too complex to be followed at this place of the text"
            )
        bits = np.unpackbits(packed, count=min(self._size, 8 * len(packed)), bitorder="little").astype(bool)
        self.allowed = torch.zeros(self._size, dtype=torch.bool)
        self.allowed[: len(bits)] = torch.from_numpy(bits)
        ends = self.allowed[self._ends].clone()
        self.allowed[self._ends] = False
        self.is_complete = not bool(self.allowed.any())
        if self._may_end:
            self.allowed[self._ends] = ends


def constrain(logits: Tensor, matchers: Sequence[Matcher | None]) -> Tensor:
    """Return ``logits`` (``[sequences, vocab]``) with minus infinity for every token that a matcher does not allow.

    If no sequence has a matcher, ``logits`` itself is returned.
    """
    rows = [(row, matcher.allowed) for row, matcher in enumerate(matchers) if matcher is not None]
    if not rows:
        return logits
    places = torch.tensor([row for row, _ in rows], device=logits.device)
    allowed = torch.stack([mask for _, mask in rows]).to(logits.device)
    constrained = logits.clone()
    constrained[places] = logits[places].masked_fill(~allowed, float("-inf"))
    return constrained
