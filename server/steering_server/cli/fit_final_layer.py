"""``steer fit`` for method final-layer, which chooses settings of the final layer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console

from steering_profiles.fit_settings import (
    LAMBDA,
    POSITIONS,
    SELF_ONLY_ATTENTION,
    SOURCES,
    FinalLayerSettings,
)
from steering_server.cli.calibration import show_calibration, show_tempered
from steering_server.cli.fit_options import FinalLayerOptions, refuse
from steering_server.cli.tables import on_terminal
from steering_server.errors import ConfigError

if TYPE_CHECKING:
    from steering_profiles.fitting import FinalLayerGroupsResult, FinalLayerResult, FitCheckpoint
    from steering_profiles.models import LoadedModel
    from steering_profiles.progress import Progress
    from steering_profiles.reports import Report
    from steering_profiles.schema import Profile
    from steering_profiles.tasks import Example, Task


@dataclass(frozen=True)
class FinalLayerFit:
    """A fit of the final layer's settings."""

    settings: FinalLayerSettings

    def fit(
        self,
        loaded: "LoadedModel",
        task: "Task",
        name: str,
        command: str,
        checkpoint: "FitCheckpoint",
        progress: "Progress",
    ) -> "FittedFinalLayer | FittedFinalLayerGroups":
        """Fit a profile."""
        from steering_profiles.fitting import fit_final_layer, fit_final_layer_groups

        if self.settings.per_group:
            return FittedFinalLayerGroups(
                fit_final_layer_groups(
                    loaded,
                    task,
                    name=name,
                    command=command,
                    settings=self.settings,
                    checkpoint=checkpoint,
                    progress=progress,
                )
            )
        return FittedFinalLayer(
            fit_final_layer(
                loaded,
                task,
                name=name,
                command=command,
                settings=self.settings,
                checkpoint=checkpoint,
                progress=progress,
            )
        )


@dataclass(frozen=True)
class FittedFinalLayer:
    """Result of a fit of the final layer's settings."""

    result: "FinalLayerResult"

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
        from steering_profiles.reports import report_of_final_layer

        return report_of_final_layer(loaded, task, held_out, self.result, progress)

    def show(self, console: Console) -> None:
        """Print the search, the chosen settings and the calibration on test."""
        from steering_profiles.reports import FinalLayerSearch
        from steering_profiles.reports.calibration import final_layer_table, search_sentences
        from steering_profiles.reports.gate import gate_comparison, gate_sentences

        result = self.result
        console.print(on_terminal(final_layer_table(result.grid)))
        search = FinalLayerSearch(result.grid, result.chosen, result.without_nll_limit, result.rejected)
        for sentence, tone in search_sentences(search):
            console.print(sentence, style="yellow" if tone == "worse" else None, markup=False, highlight=False)
        show_calibration(console, "test", result.test)
        show_tempered(console, {"test": result.test})
        bought = gate_comparison(result.without_gate, result.test, result.side_effects)
        for sentence in gate_sentences(bought) if bought is not None else ():
            console.print(sentence, markup=False, highlight=False)


@dataclass(frozen=True)
class FittedFinalLayerGroups:
    """Result of a fit of the final layer's settings for each group alone."""

    result: "FinalLayerGroupsResult"

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
        from steering_profiles.reports import report_of_final_layer_groups

        return report_of_final_layer_groups(loaded, task, held_out, self.result, progress)

    def show(self, console: Console) -> None:
        """Print the chosen settings and the calibration on test."""
        from steering_profiles.reports.group_choices import choices_of_groups_table, group_sentences

        choices = self.result.choices
        console.print(on_terminal(choices_of_groups_table(choices)))
        for sentence, tone in group_sentences(choices):
            console.print(sentence, style="yellow" if tone == "worse" else None, markup=False, highlight=False)
        show_calibration(console, "test", self.result.test)
        show_tempered(console, {"test": self.result.test})


def final_layer_settings(options: FinalLayerOptions) -> FinalLayerSettings:
    """Return the settings that the options give; the others have their defaults.

    Raises:
        ConfigError: an option has a value that is not allowed; the message names it.
    """
    if options.per_group:
        refuse("final-layer with --per-group", options.of_one_setting)
    unknown = [source for source in options.intercept if source not in SOURCES]
    if unknown:
        raise ConfigError(f"intercept is {unknown[0]!r}; allowed: {', '.join(SOURCES)}")
    elsewhere = [positions for positions in options.positions if positions not in POSITIONS]
    if elsewhere:
        raise ConfigError(f"positions is {elsewhere[0]!r}; allowed: {', '.join(POSITIONS)}")
    try:
        return FinalLayerSettings(
            self_only_attention=options.self_only_attention or SELF_ONLY_ATTENTION,
            lambdas=options.lambdas or LAMBDA,
            sources=tuple(source for source in SOURCES if source in options.intercept) or SOURCES,
            positions=tuple(positions for positions in POSITIONS if positions in options.positions) or POSITIONS,
            conditions=options.conditions,
            gates=options.gates,
            per_group=options.per_group,
            max_lost=FinalLayerSettings.max_lost if options.max_lost is None else options.max_lost,
            max_nll_increase=options.max_nll_increase,
        )
    except ValueError as exc:
        raise ConfigError(str(exc)) from exc
