"""The work of ``steer fit``: from checked options to a profile and its report."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from steering_profiles.source import ModelSource
from steering_server.cli.fit_components import ComponentsFit, components_settings
from steering_server.cli.fit_final_layer import FinalLayerFit, final_layer_settings
from steering_server.cli.fit_options import FINAL_LAYER, ComponentOptions, FinalLayerOptions, refuse
from steering_server.cli.interrupts import report_saved
from steering_server.cli.loading import open_model
from steering_server.cli.options import Option
from steering_server.cli.progress import progress_bars
from steering_server.cli.report_plots import can_draw_plots
from steering_server.errors import ConfigError

if TYPE_CHECKING:
    from steering_profiles.fitting import FitCheckpoint

MethodFit = ComponentsFit | FinalLayerFit


@dataclass(frozen=True)
class FitPlan:
    """A fit whose options have been checked as far as possible without the model."""

    source: str
    """Name of a built-in task, or path of a file (:mod:`steering_profiles.tasks.catalogue`)."""
    name: str
    """Name of the profile."""
    seed: int
    method: MethodFit
    model: ModelSource
    out: Path
    command: str
    """Command line that makes the same profile again."""


def method_fit(
    method: str, components: ComponentOptions, final_layer: FinalLayerOptions, *, compare: bool
) -> MethodFit:
    """Return the fit of ``method``, with its options.

    Raises:
        ConfigError: the method does not exist, an option has a value that is not allowed, or one is given that has no
            effect with this method.
    """
    if method == FINAL_LAYER:
        refuse(method, [*components.all, Option("--compare", compare, False)])
        return FinalLayerFit(final_layer_settings(final_layer))
    settings = components_settings(method, components)
    refuse(method, final_layer.all)
    if not compare:  # --compare searches with all methods, so it uses the options of all
        refuse(method, components.of_grid if method == "stepwise" else components.of_stepwise)
    return ComponentsFit(settings, compare)


def checked_name(name: str) -> str:
    """Return ``name`` if it is a valid name of a profile.

    Raises:
        ConfigError: the name is not valid; the message says what is allowed.
    """
    from pydantic import TypeAdapter, ValidationError

    from steering_profiles.fields import ProfileName
    from steering_profiles.schema import BASELINE

    try:
        checked: str = TypeAdapter(ProfileName).validate_python(name)
    except ValidationError as exc:
        raise ConfigError(f"name is {name!r}; allowed: lower-case letters, digits, '.', '_' and '-'") from exc
    if checked == BASELINE:
        raise ConfigError(f"name is {name!r}, which is reserved for the unsteered model; choose another")
    return checked


def make_profile(plan: FitPlan) -> None:
    """Fit, write the profile and its report, and print the results."""
    console = Console()
    plots = can_draw_plots(console)
    loaded = open_model(plan.model)

    from steering_profiles.fitting import FitCheckpoint, fit_key
    from steering_profiles.reports import write_report
    from steering_profiles.store import save_profile
    from steering_profiles.tasks import held_out_formats_of, make_task

    made = make_task(plan.source, loaded.tokenizer, plan.seed, loaded.context_length)
    for reason in made.left_out:
        console.print(f"left out: {reason}", style="yellow", markup=False)
    checkpoint = FitCheckpoint(plan.out / f".{plan.name}.fit", fit_key(loaded, made, plan.method.settings))
    if len(checkpoint):
        console.print(f"continuing an interrupted fit, of which {len(checkpoint)} results are saved")
    with report_saved(lambda: _kept(checkpoint)):
        with progress_bars() as progress:
            fitted = plan.method.fit(loaded, made, plan.name, plan.command, checkpoint, progress)
            # Saved before the report, which takes a while. A profile that changes nothing could not be loaded.
            path = None if fitted.profile.changes_nothing else save_profile(fitted.profile, plan.out)
            held_out = held_out_formats_of(plan.source, loaded.tokenizer, plan.seed, loaded.context_length)
            report = fitted.report(loaded, made, held_out, plan.command, progress)
        page, _ = write_report(report, plan.out, plots)
        checkpoint.discard()
    fitted.show(console)
    if path is None:
        console.print(
            "no profile is written: nothing that was tried is better on dev within the limits", style="yellow"
        )
        earlier = plan.out / f"{plan.name}.json"
        if earlier.exists():
            console.print(f"{earlier} is of an earlier fit; the report does not describe it", style="yellow")
    console.print(f"wrote {page}" if path is None else f"wrote {path} and {page}", soft_wrap=True)


def _kept(checkpoint: "FitCheckpoint") -> str:
    if not len(checkpoint):
        return "no results are saved yet"
    return f"{len(checkpoint)} results of the fit are saved; run the same command again to continue"
