"""The parts of a model that RASteer ranks and scales: attention heads and feed-forward neurons."""

from collections.abc import Mapping
from dataclasses import dataclass

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
