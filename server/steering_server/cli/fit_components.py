"""``steer fit`` for methods that scale components: RASteer and the methods that it is compared with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from steering_profiles.fit_settings import ALPHA, METHODS, METRICS, TOP_K, FitSettings, Kind, StepwiseSettings
from steering_server.cli.fit_options import FINAL_LAYER, ComponentOptions
from steering_server.errors import ConfigError

if TYPE_CHECKING:
    from steering_profiles.fitting import FitCheckpoint, FitResult
    from steering_profiles.fitting.grid import MeasuredPoint
    from steering_profiles.fitting.rounds import Round
    from steering_profiles.models import LoadedModel
    from steering_profiles.progress import Progress
    from steering_profiles.reports import Report
    from steering_profiles.schema import Profile
    from steering_profiles.tasks import Example, Task

_KINDS: dict[str, tuple[Kind, ...]] = {"heads": ("head",), "neurons": ("neuron",), "both": ("head", "neuron")}


@dataclass(frozen=True)
class ComponentsFit:
    """A fit of component scales."""

    settings: FitSettings
    compare: bool
    """Whether to search with the other methods too, for the report."""

    def fit(
        self,
        loaded: "LoadedModel",
        task: "Task",
        name: str,
        command: str,
        checkpoint: "FitCheckpoint",
        progress: "Progress",
    ) -> "FittedComponents":
        """Fit a profile."""
        from steering_profiles.fitting import fit

        result = fit(
            loaded, task, name=name, command=command, settings=self.settings, checkpoint=checkpoint, progress=progress
        )
        return FittedComponents(result, _other_methods(self.settings, task) if self.compare else [])


@dataclass(frozen=True)
class FittedComponents:
    """Result of a fit of component scales."""

    result: "FitResult"
    others: list[FitSettings]
    """Settings of the other methods that the report compares with."""

    @property
    def profile(self) -> "Profile":
        """The fitted profile."""
        return self.result.profile

    def report(
        self,
        loaded: "LoadedModel",
        task: "Task",
        held_out: "Mapping[str, Sequence[Example]]",
        command: str,
        progress: "Progress",
    ) -> "Report":
        """Make the report, and the measurements that it shows besides those of the fit."""
        from steering_profiles.fitting import fit
        from steering_profiles.reports import report_of_fit

        others = [
            fit(
                loaded,
                task,
                name=self.profile.name,
                command=command,
                settings=other,
                ranking=self.result.ranking,
                progress=progress,
            )
            for other in self.others
        ]
        report = report_of_fit(loaded, task, held_out, self.result, others, progress)
        return replace(report, command=command + " --compare" * bool(others))

    def show(self, console: Console) -> None:
        """Print the search, the chosen scales and the test accuracy."""
        result = self.result
        choice = result.choice
        if choice.grid:
            console.print(_grid_table(choice.grid))
        for place, found in enumerate(choice.rounds, start=1):
            console.print(_path_table(found))
            for refused in found.refused:
                console.print(f"better on the validation set, and not allowed: {refused}", style="yellow", markup=False)
            if len(choice.rounds) > 1:
                console.print(f"round {place}: {found}", markup=False)
        scaled = [
            ", ".join(f"{component} x {scale:g}" for component, scale in sorted(one.scales.items()))
            for one in choice.sets
            if one.scales
        ]
        console.print(f"{result.profile.summary}: {'; '.join(scaled) or 'none'}", markup=False)
        table = Table("sub-task", "without", "with", title="test accuracy, %")
        after = result.after.percent
        for group, before in result.before.percent.items():
            table.add_row(group, f"{before:.1f}", f"{after[group]:.1f}")
        console.print(table)


def components_settings(method: str, options: ComponentOptions) -> FitSettings:
    """Return the settings that the options give; the others have their defaults.

    Raises:
        ConfigError: an option has a value that is not allowed; the message names it.
    """
    for name, value, allowed in (
        ("method", method, (*METHODS, FINAL_LAYER)),
        ("components", options.components, tuple(_KINDS)),
        ("metric", options.metric, METRICS),
    ):
        if value not in allowed:
            raise ConfigError(f"{name} is {value!r}; allowed: {', '.join(allowed)}")
    if options.conditions and options.max_lost is None:
        raise ConfigError(
            "--conditions is given without --max-lost; conditions are chosen by what is lost without them"
        )
    if options.in_turn and not options.conditions:
        raise ConfigError(
            "--in-turn is given without --conditions; the search is made under one condition after the other"
        )
    try:
        return FitSettings(
            method=next(known for known in METHODS if known == method),
            kinds=_KINDS[options.components],
            metric=next(known for known in METRICS if known == options.metric),
            accuracy_threshold=options.accuracy_threshold,
            top_k=options.k or TOP_K,
            alphas=options.alpha or ALPHA,
            stepwise=StepwiseSettings(
                max_components=options.max_components,
                max_scale=options.max_scale,
                max_lost=options.max_lost,
                conditions=options.conditions,
                in_turn=options.in_turn,
                margin=options.margin,
            ),
        )
    except ValueError as exc:
        raise ConfigError(str(exc)) from exc


def _other_methods(settings: FitSettings, task: "Task") -> list[FitSettings]:
    """Return the settings of the other methods that can fit this task and these components."""
    heads_only = settings.kinds == ("head",)
    possible = {"stepwise": True, "paper": True, "circuit": heads_only and bool(task.pairs), "random": heads_only}
    return [replace(settings, method=method) for method in METHODS if method != settings.method and possible[method]]


def _path_table(found: "Round") -> Table:
    columns = ("step", "components", "total change (L1)", "correct, %", "other text's NLL")
    table = Table(*columns, title="the search, on the validation set (bold: chosen)")
    for point in found.path:
        correct = 100 * point.accuracy.correct / point.accuracy.total
        cells = (
            point.step,
            len(point.scales),
            f"{point.total_change:g}",
            f"{correct:.1f}",
            f"{100 * point.nll_increase:+.2f}%",
        )
        style = "bold" if point.step == found.chosen.step else None
        table.add_row(*map(str, cells), style=style)
    return table


def _grid_table(grid: "Sequence[MeasuredPoint]") -> Table:
    from steering_profiles.fields import strength_text

    points = {(m.point.k, m.point.alpha): m.accuracy for m in grid}
    alphas = sorted({alpha for k, alpha in points if k})
    table = Table(
        "scaled",
        *(f"x{strength_text(alpha)}" for alpha in alphas),
        title="dev accuracy, % (dim: measured on a part of dev, then ruled out)",
    )
    most = max(accuracy.total for accuracy in points.values())
    for k in sorted({k for k, _ in points}):
        row = [points[(k, alpha) if k else (0, 1.0)] for alpha in alphas]
        cells = [(f"{100 * accuracy.correct / accuracy.total:.0f}", accuracy.total == most) for accuracy in row]
        table.add_row(str(k), *(text if whole else f"[dim]{text}[/]" for text, whole in cells))
    return table
