"""Pressure of the stepwise search on groups of prompts that lose by it."""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Pressure:
    """Weights of the prompts of a fitting batch, which grow for groups that answer worse than the plain model did.

    A group's weight is doubled at every step at which it has fewer right answers than at the first, up to
    ``most``, and otherwise halved, down to 1.
    """

    labels: Sequence[str]
    """The group of each prompt: format and sub-task."""
    most: float = 8.0
    _first: dict[str, int] | None = field(default=None, init=False)
    _by_label: dict[str, float] = field(default_factory=dict, init=False)

    @property
    def weights(self) -> list[float]:
        """The weight of each prompt."""
        return [self._by_label.get(label, 1.0) for label in self.labels]

    def update(self, leads: Sequence[float]) -> None:
        """Take the leads of the right answers at a step, see :class:`.LossGradient`."""
        right = dict.fromkeys(self.labels, 0)
        for label, lead in zip(self.labels, leads, strict=True):
            right[label] += lead > 0
        if self._first is None:
            self._first = right
        for label, count in right.items():
            weight = self._by_label.get(label, 1.0)
            self._by_label[label] = min(2 * weight, self.most) if count < self._first[label] else max(weight / 2, 1.0)
