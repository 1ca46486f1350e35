"""What fits choose: heads and neurons of a model, their scales, and sets of scales with a condition each."""

from collections.abc import Mapping
from dataclasses import dataclass

from steering_profiles.conditions import Condition
from steering_profiles.fit_settings import Kind


@dataclass(frozen=True, order=True)
class Component:
    """One attention head or one feed-forward neuron."""

    kind: Kind
    layer: int
    index: int

    def __str__(self) -> str:
        return f"L{self.layer}{'H' if self.kind == 'head' else 'N'}{self.index}"


Scales = Mapping[Component, float]
"""Factor of each component's activation; components that are not in it have the factor 1."""


@dataclass(frozen=True)
class ScaleSet:
    """Scales, and where they apply."""

    scales: Scales
    condition: Condition | None = None
    """None: at every position."""

    @property
    def total_change(self) -> float:
        """Total change (L1): the sum of ``|scale - 1|`` over the components."""
        return round(sum(abs(scale - 1) for scale in self.scales.values()), 9)
