"""The result of running a prompt under several arms."""

from dataclasses import dataclass
from functools import cached_property

from steering_client.types import AppliedArms, ArmPair, Completion


@dataclass(frozen=True)
class Comparison:
    """The completions of one prompt under several arms, and where they part."""

    completion: Completion

    @cached_property
    def texts(self) -> dict[str, str]:
        """Each arm's text (its first, if n > 1), in the order of the request."""
        return {arm: choices[0].text for arm, choices in self.completion.by_arm().items()}

    @property
    def pairs(self) -> tuple[ArmPair, ...]:
        """Every pair of arms: the first token that differs and, where asked for, cross log-probabilities."""
        return self.completion.comparison.pairs if self.completion.comparison else ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was asked of an arm and does nothing, or not in full: ``arm: ...``."""
        steering = self.completion.steering
        arms = steering.arms if isinstance(steering, AppliedArms) else (steering,)
        return tuple(f"{arm.arm}: {warning}" for arm in arms for warning in arm.warnings)

    def pair(self, one: str, other: str) -> ArmPair:
        """Return what is known of two arms (their first choices, if n > 1).

        Raises:
            KeyError: one of them is not among the arms.
        """
        for pair in self.pairs:
            if set(pair.arms) == {one, other}:
                return pair
        raise KeyError(f"no arms {one!r} and {other!r}; there are {list(self.texts)}")

    @property
    def common_prefix(self) -> str:
        """The text that all arms begin with."""
        texts = list(self.texts.values())
        length = next(
            (i for i, column in enumerate(zip(*texts, strict=False)) if len(set(column)) > 1), min(map(len, texts))
        )
        return texts[0][:length]

    def __str__(self) -> str:
        """One line per arm, the place where they part marked by ``|``."""
        width, at = max(map(len, self.texts)), len(self.common_prefix)
        same = len(set(self.texts.values())) == 1
        return "\n".join(
            f"{arm:<{width}}  {text[:at]!r}" + ("" if same else f" | {text[at:]!r}") for arm, text in self.texts.items()
        )
