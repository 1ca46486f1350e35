"""The options of ``steer fit`` that say how it searches, in two groups: what scales components, and what does not."""

from collections.abc import Iterable
from dataclasses import dataclass

from steering_server.cli.options import Option, given
from steering_server.errors import ConfigError

FINAL_LAYER = "final-layer"
"""The method that scales no components."""


@dataclass(frozen=True)
class ComponentOptions:
    """How components and their scales are searched for."""

    components: str = "heads"
    max_components: int = 20
    max_scale: float = 1.5
    metric: str = "f1"
    accuracy_threshold: float = 0.7
    k: tuple[int, ...] = ()
    alpha: tuple[float, ...] = ()

    @property
    def of_stepwise(self) -> list[Option]:
        """Those of the stepwise search alone."""
        return [
            Option("--max-components", self.max_components, ComponentOptions.max_components),
            Option("--max-scale", self.max_scale, ComponentOptions.max_scale),
        ]

    @property
    def of_grid(self) -> list[Option]:
        """Those of the methods that try a grid."""
        return [Option("--k", self.k, ()), Option("--alpha", self.alpha, ())]

    @property
    def all(self) -> list[Option]:
        """All of them."""
        return [
            Option("--components", self.components, ComponentOptions.components),
            *self.of_stepwise,
            Option("--metric", self.metric, ComponentOptions.metric),
            Option("--accuracy-threshold", self.accuracy_threshold, ComponentOptions.accuracy_threshold),
            *self.of_grid,
        ]


@dataclass(frozen=True)
class FinalLayerOptions:
    """How settings of the final layer are searched for."""

    self_only_attention: tuple[float, ...] = ()
    lambdas: tuple[float, ...] = ()
    intercept: tuple[str, ...] = ()
    gates: bool = False
    max_lost: float = 1.0
    max_nll_increase: float = 0.01

    @property
    def all(self) -> list[Option]:
        """All of them."""
        return [
            Option("--self-only-attention", self.self_only_attention, ()),
            Option("--lambda", self.lambdas, ()),
            Option("--intercept", self.intercept, ()),
            Option("--max-lost", self.max_lost, FinalLayerOptions.max_lost),
            Option("--max-nll-increase", self.max_nll_increase, FinalLayerOptions.max_nll_increase),
            Option("--gates", self.gates, False),
        ]


def refuse(method: str, options: Iterable[Option]) -> None:
    """Refuse options that ``method`` would ignore.

    Raises:
        ConfigError: one of them is given.
    """
    for option in given(options):
        raise ConfigError(f"{option.name} means nothing to method {method}; leave it out or choose another method")
