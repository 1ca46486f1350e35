"""The result of a request with several arms."""

from dataclasses import dataclass
from functools import cached_property

from steering_client.types import AppliedArms, ArmPair, Completion


@dataclass(frozen=True)
class Comparison:
    """The completions of a prompt under several arms, and where they differ."""

    completion: Completion

    @cached_property
    def texts(self) -> dict[str, str]:
        """Text of each arm (of its first choice, if n > 1), in the order of the request."""
        return {arm: choices[0].text for arm, choices in self.completion.by_arm().items()}

    @property
    def pairs(self) -> tuple[ArmPair, ...]:
        """All pairs of arms: the first token that differs and, if ``logprobs`` was set, cross log-probabilities."""
        return self.completion.comparison.pairs if self.completion.comparison else ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """Settings of an arm that have no effect, or not in full: ``arm: ...``."""
        steering = self.completion.steering
        arms = steering.arms if isinstance(steering, AppliedArms) else (steering,)
        return tuple(f"{arm.arm}: {warning}" for arm in arms for warning in arm.warnings)

    def pair(self, one: str, other: str) -> ArmPair:
        """Return the comparison of two arms (of their first choices, if n > 1).

        Raises:
            KeyError: One of them is not an arm of the request.
        """
        for pair in self.pairs:
            if set(pair.arms) == {one, other}:
                return pair
        raise KeyError(f"no pair of arms {one!r} and {other!r}; the arms are {list(self.texts)}")

    @property
    def common_prefix(self) -> str:
        """Longest common prefix of the texts."""
        texts = list(self.texts.values())
        length = next(
            (i for i, column in enumerate(zip(*texts, strict=False)) if len(set(column)) > 1), min(map(len, texts))
        )
        return texts[0][:length]

    def __str__(self) -> str:
        """One line per arm, with ``|`` after the common prefix."""
        width, at = max(map(len, self.texts)), len(self.common_prefix)
        same = len(set(self.texts.values())) == 1
        return "\n".join(
            f"{arm:<{width}}  {text[:at]!r}" + ("" if same else f" | {text[at:]!r}") for arm, text in self.texts.items()
        )
