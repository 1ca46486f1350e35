"""Where conditions hold in the texts of a forward pass, for a model whose tokenizer is known."""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from steering_profiles.composition import Steering
from steering_profiles.conditions import ConditionTrace
from steering_profiles.tokenization import Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class TextReader:
    """Reads texts token by token. The vocabulary is read when the first condition needs it."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        self._tokenizer = tokenizer

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        return Vocabulary(self._tokenizer)

    def trace(self, steering: Steering, prompt_length: int) -> ConditionTrace | None:
        """Return what reads a sequence under ``steering``; None where that has no condition."""
        if not steering.conditions:
            return None
        return ConditionTrace(steering.conditions, self._vocabulary.bytes_of, prompt_length)

    def held(
        self, steering: Steering, texts: Sequence[tuple[Sequence[int], int]], width: int
    ) -> list[list[int]] | None:
        """Return the conditions that hold at each position of ``texts``: tokens, and the length of the prompt.

        There are ``width`` positions; none holds in the padding on the right. None where ``steering`` has no condition.
        """
        found = []
        for tokens, prompt_length in texts:
            trace = self.trace(steering, prompt_length)
            if trace is None:
                return None
            found.append(trace.held(tokens, 0, len(tokens)) + [0] * (width - len(tokens)))
        return found
