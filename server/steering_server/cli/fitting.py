"""The work of ``steer fit``, from what was asked for to a profile and its report."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from steering_profiles.source import ModelSource
from steering_server.cli.fit_components import ComponentsFit, components_settings
from steering_server.cli.fit_final_layer import FinalLayerFit, final_layer_settings
from steering_server.cli.fit_options import FINAL_LAYER, ComponentOptions, FinalLayerOptions, refuse
from steering_server.cli.interrupts import keeping
from steering_server.cli.loading import open_model
from steering_server.cli.options import Option
from steering_server.cli.progress import progress_bars
from steering_server.cli.report_plots import can_draw_plots
from steering_server.errors import ConfigError

if TYPE_CHECKING:
    from steering_profiles.fitting import FitCheckpoint

Way = ComponentsFit | FinalLayerFit


@dataclass(frozen=True)
class Asked:
    """A fit that can be made, as far as is known without the model."""

    source: str
    """Of the task: see :mod:`steering_profiles.tasks.catalogue`."""
    name: str
    """The profile's."""
    seed: int
    way: Way
    model: ModelSource
    out: Path
    command: str
    """What makes the profile again."""


def way_of(method: str, components: ComponentOptions, final_layer: FinalLayerOptions, *, compare: bool) -> Way:
    """Return the way in which ``method`` fits, with the options that it has.

    Raises:
        ConfigError: there is no such method, an option has no such value, or one is given that means nothing to it.
    """
    if method == FINAL_LAYER:
        refuse(method, [*components.all, Option("--compare", compare, False)])
        return FinalLayerFit(final_layer_settings(final_layer))
    settings = components_settings(method, components)
    refuse(method, final_layer.all)
    if not compare:  # which searches with the other methods too
        refuse(method, components.of_grid if method == "stepwise" else components.of_stepwise)
    return ComponentsFit(settings, compare)


def checked_name(name: str) -> str:
    """Return ``name`` if a profile may be called that.

    Raises:
        ConfigError: it may not.
    """
    from pydantic import TypeAdapter, ValidationError

    from steering_profiles.schema import BASELINE, ProfileName

    try:
        checked: str = TypeAdapter(ProfileName).validate_python(name)
    except ValidationError as exc:
        raise ConfigError(f"name is {name!r}; allowed: lower-case letters, digits, '.', '_' and '-'") from exc
    if checked == BASELINE:
        raise ConfigError(f"name is {name!r}, which names the unsteered model; choose another")
    return checked


def make_profile(asked: Asked) -> None:
    """Fit, write the profile and its report, and print what was found."""
    console = Console()
    plots = can_draw_plots(console)
    loaded = open_model(asked.model)

    from steering_profiles.fitting import FitCheckpoint, fit_key
    from steering_profiles.reports import write_report
    from steering_profiles.store import save_profile
    from steering_profiles.tasks import held_out_formats_of, make_task

    made = make_task(asked.source, loaded.tokenizer, asked.seed, loaded.context_length)
    for reason in made.left_out:
        console.print(f"left out: {reason}", style="yellow", markup=False)
    checkpoint = FitCheckpoint(asked.out / f".{asked.name}.fit", fit_key(loaded, made, asked.way.settings))
    if len(checkpoint):
        console.print(f"going on with a fit that was interrupted: {len(checkpoint)} of its results are kept")
    with keeping(lambda: _kept(checkpoint)):
        with progress_bars() as progress:
            fitted = asked.way.fit(loaded, made, asked.name, asked.command, checkpoint, progress)
            # Now: what follows takes a while, and is not the profile. One that changes nothing could not be loaded.
            path = None if fitted.profile.changes_nothing else save_profile(fitted.profile, asked.out)
            held_out = held_out_formats_of(asked.source, loaded.tokenizer, asked.seed, loaded.context_length)
            report = fitted.report(loaded, made, held_out, asked.command, progress)
        page, _ = write_report(report, asked.out, plots)
        checkpoint.discard()
    fitted.show(console)
    if path is None:
        console.print("no profile is written: nothing that was tried is better on dev and allowed", style="yellow")
        earlier = asked.out / f"{asked.name}.json"
        if earlier.exists():
            console.print(f"{earlier} is of an earlier fit, and not what the report is about", style="yellow")
    console.print(f"wrote {page}" if path is None else f"wrote {path} and {page}", soft_wrap=True)


def _kept(checkpoint: "FitCheckpoint") -> str:
    if not len(checkpoint):
        return "nothing is kept yet"
    return f"{len(checkpoint)} of the fit's results are kept; the same command goes on from there"
