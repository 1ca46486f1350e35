"""Search options of ``steer fit``: those of the methods that scale components, and those of method final-layer."""

from collections.abc import Iterable
from dataclasses import dataclass

from steering_server.cli.options import Option, given
from steering_server.errors import ConfigError

FINAL_LAYER = "final-layer"
"""Name of the method that changes the final layer and scales no component."""


@dataclass(frozen=True)
class ComponentOptions:
    """Options of the search for components and scales."""

    components: str = "heads"
    max_components: int = 20
    max_scale: float = 1.5
    metric: str = "f1"
    accuracy_threshold: float = 0.7
    k: tuple[int, ...] = ()
    alpha: tuple[float, ...] = ()
    max_lost: float | None = None
    conditions: bool = False
    in_turn: bool = False
    margin: float = 1.0

    @property
    def of_stepwise(self) -> list[Option]:
        """Options of the stepwise search only."""
        return [
            Option("--max-components", self.max_components, ComponentOptions.max_components),
            Option("--max-scale", self.max_scale, ComponentOptions.max_scale),
            Option("--max-lost", self.max_lost, None),
            Option("--conditions", self.conditions, False),
            Option("--in-turn", self.in_turn, False),
            Option("--margin", self.margin, ComponentOptions.margin),
        ]

    @property
    def of_grid(self) -> list[Option]:
        """Options of the methods that search a grid."""
        return [Option("--k", self.k, ()), Option("--alpha", self.alpha, ())]

    @property
    def all(self) -> list[Option]:
        """All options of this group."""
        return [
            Option("--components", self.components, ComponentOptions.components),
            *self.of_stepwise,
            Option("--metric", self.metric, ComponentOptions.metric),
            Option("--accuracy-threshold", self.accuracy_threshold, ComponentOptions.accuracy_threshold),
            *self.of_grid,
        ]


@dataclass(frozen=True)
class FinalLayerOptions:
    """Options of the search for settings of the final layer."""

    self_only_attention: tuple[float, ...] = ()
    lambdas: tuple[float, ...] = ()
    intercept: tuple[str, ...] = ()
    positions: tuple[str, ...] = ()
    conditions: bool = False
    gates: bool = False
    max_lost: float | None = None
    max_nll_increase: float = 0.01
    per_group: bool = False

    @property
    def of_one_setting(self) -> list[Option]:
        """Options of the search for one setting of all sub-tasks."""
        return [
            Option("--positions", self.positions, ()),
            Option("--conditions", self.conditions, False),
            Option("--gates", self.gates, False),
            Option("--max-nll-increase", self.max_nll_increase, FinalLayerOptions.max_nll_increase),
        ]

    @property
    def all(self) -> list[Option]:
        """All options of this group."""
        return [
            Option("--per-group", self.per_group, False),
            Option("--self-only-attention", self.self_only_attention, ()),
            Option("--lambda", self.lambdas, ()),
            Option("--intercept", self.intercept, ()),
            Option("--positions", self.positions, ()),
            Option("--conditions", self.conditions, False),
            Option("--max-lost", self.max_lost, None),
            Option("--max-nll-increase", self.max_nll_increase, FinalLayerOptions.max_nll_increase),
            Option("--gates", self.gates, False),
        ]


def refuse(method: str, options: Iterable[Option]) -> None:
    """Refuse options that ``method`` would ignore.

    Raises:
        ConfigError: an option is given; the message names it.
    """
    for option in given(options):
        raise ConfigError(f"{option.name} has no effect with method {method}; leave it out or choose another method")
