"""``steer fit``: make a profile for a task."""

import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from steering_server.cli.destinations import require_writable_folder
from steering_server.cli.fit_components import ComponentsFit, components_settings
from steering_server.cli.fit_final_layer import FinalLayerFit, final_layer_settings
from steering_server.cli.model_options import CacheDir, DeviceMap, Dtype, MaxMemory, Model, model_settings
from steering_server.cli.progress import progress_bars
from steering_server.errors import ConfigError

_SEARCH = "Search"
_FINAL = "Search of method final-layer"
_FINAL_LAYER = "final-layer"

_Options = list[tuple[str, object, object]]
"""Options, each with its value and its default."""


def fit(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write NAME.json and its report to.")],
    task: Annotated[
        str | None,
        typer.Argument(
            metavar="[TASK]",
            help="What the model should get right: parentheses, arithmetic, factual-recall or one of its domains.",
        ),
    ] = None,
    task_file: Annotated[
        str | None,
        typer.Option("--task", metavar="TASK", help="The same as TASK; also a file of your own: FILE.jsonl."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="The profile's name. (default: the task's)")] = None,
    seed: Annotated[int, typer.Option(help="Decides which prompts are train, dev and test.")] = 0,
    method: Annotated[
        str | None,
        typer.Option(
            help="stepwise raises each scale by what the answers gain; paper, circuit and random take the k best of an "
            "order and one scale for all: RASteer's, that of activation patching, a random one. final-layer scales "
            "nothing: it makes the last layer less hesitant. (default: final-layer for facts, else stepwise)",
            rich_help_panel=_SEARCH,
        ),
    ] = None,
    components: Annotated[str, typer.Option(help="heads, neurons or both.", rich_help_panel=_SEARCH)] = "heads",
    most_components: Annotated[
        int,
        typer.Option("--max-components", min=1, help="Stepwise: scale no more than these.", rich_help_panel=_SEARCH),
    ] = 20,
    most_scale: Annotated[
        float, typer.Option("--max-scale", help="Stepwise: scale nothing by more.", rich_help_panel=_SEARCH)
    ] = 1.5,
    metric: Annotated[
        str, typer.Option(help="What components are ranked by: f1, recall or precision.", rich_help_panel=_SEARCH)
    ] = "f1",
    accuracy_threshold: Annotated[
        float,
        typer.Option(
            help="Accuracy from which a component counts as right on a sub-task. The paper's code has 0.9.",
            rich_help_panel=_SEARCH,
        ),
    ] = 0.7,
    k: Annotated[
        list[int] | None,
        typer.Option(
            help="Numbers of components to try, may be repeated. (default: the paper's)", rich_help_panel=_SEARCH
        ),
    ] = None,
    alpha: Annotated[
        list[float] | None,
        typer.Option(help="Scales to try, may be repeated. (default: the paper's)", rich_help_panel=_SEARCH),
    ] = None,
    own_attention: Annotated[
        list[float] | None,
        typer.Option(help="Shares of own-position attention to try, may be repeated.", rich_help_panel=_FINAL),
    ] = None,
    lambdas: Annotated[
        list[float] | None,
        typer.Option(
            "--lambda",
            help="Shares of the intercept to subtract, may be repeated and less than 0.",
            rich_help_panel=_FINAL,
        ),
    ] = None,
    intercept: Annotated[
        list[str] | None,
        typer.Option(help="regression or mean, may be repeated. (default: both are tried)", rich_help_panel=_FINAL),
    ] = None,
    gates: Annotated[
        bool,
        typer.Option(
            "--gates",
            help="Also try to change only what is predicted with a probability in some band.",
            rich_help_panel=_FINAL,
        ),
    ] = False,
    most_lost: Annotated[
        float,
        typer.Option("--max-lost", help="Percentage points a sub-task may lose on dev.", rich_help_panel=_FINAL),
    ] = 1.0,
    most_drift: Annotated[
        float,
        typer.Option("--max-drift", help="Share by which other text's NLL may rise.", rich_help_panel=_FINAL),
    ] = 0.01,
    compare: Annotated[
        bool, typer.Option("--compare", help="Search with the other methods too and show them side by side.")
    ] = False,
    model: Model = None,
    dtype: Dtype = None,
    device_map: DeviceMap = None,
    max_memory: MaxMemory = None,
    cache_dir: CacheDir = None,
) -> None:
    """Fit a steering profile: find the components that promote the right answer.

    Attention heads (or neurons) are ranked on the task's train prompts. Which
    of them to scale, and by how much, is chosen on its dev prompts. For facts,
    two settings of the last layer are chosen instead. The figures printed are
    those of the test prompts, which nothing else saw. A report beside the
    profile shows all of it. A fit that was interrupted goes on where it was.

    [dim]steer fit parentheses --out my-profiles[/]
    [dim]steer fit factual-recall --out my-profiles[/]
    [dim]steer fit --task my-questions.jsonl --out my-profiles[/]
    [dim]steer serve --profiles my-profiles[/]
    """
    from steering_profiles.fitting import Journal, fit_key
    from steering_profiles.models import EMBEDDED, load_model
    from steering_profiles.reports import write_report
    from steering_profiles.store import save_profile
    from steering_profiles.tasks import RECALL_TASKS, make_task, require_known, task_name, variants_of
    from steering_server.config import load_settings

    source = _source(task, task_file)
    require_known(source)
    profile_name = _checked_name(name or task_name(source))
    usual = _FINAL_LAYER if source in RECALL_TASKS else "stepwise"
    method = usual if method is None else method
    of_stepwise: _Options = [("--max-components", most_components, 20), ("--max-scale", most_scale, 1.5)]
    of_grid: _Options = [
        *(("--k", value, None) for value in k or ()),
        *(("--alpha", value, None) for value in alpha or ()),
    ]
    of_components: _Options = [
        ("--components", components, "heads"),
        *of_stepwise,
        ("--metric", metric, "f1"),
        ("--accuracy-threshold", accuracy_threshold, 0.7),
        *of_grid,
    ]
    of_final_layer: _Options = [
        *(("--own-attention", value, None) for value in own_attention or ()),
        *(("--lambda", value, None) for value in lambdas or ()),
        *(("--intercept", value, None) for value in intercept or ()),
        ("--max-lost", most_lost, 1.0),
        ("--max-drift", most_drift, 0.01),
        ("--gates", gates, False),
    ]
    way: ComponentsFit | FinalLayerFit
    if method == _FINAL_LAYER:
        _refuse(method, [*of_components, ("--compare", compare, False)])
        way = FinalLayerFit(
            final_layer_settings(own_attention or (), lambdas or (), intercept or (), gates, most_lost, most_drift)
        )
    else:
        settings = components_settings(
            method, components, most_components, most_scale, metric, accuracy_threshold, k or (), alpha or ()
        )
        _refuse(method, of_final_layer)
        if not compare:  # which searches with the other methods too
            _refuse(method, of_grid if method == "stepwise" else of_stepwise)
        way = ComponentsFit(settings, compare)
    require_writable_folder("--out", out)
    server_settings = load_settings(**model_settings(model, dtype, device_map, max_memory, cache_dir))
    command = _command(
        source,
        out,
        [
            ("--name", name, None),
            ("--seed", seed, 0),
            ("--method", method, usual),
            *of_components,
            *of_final_layer,
            ("--model", server_settings.model, EMBEDDED),  # not the option: it may come from the environment
            ("--dtype", server_settings.dtype, "auto"),
        ],
    )

    console = Console()
    with Console(stderr=True).status("loading the model"):
        loaded = load_model(server_settings.model_source)
    made = make_task(source, loaded.tokenizer, seed, loaded.context_length)
    for reason in made.left_out:
        console.print(f"left out: {reason}", style="yellow", markup=False)
    journal = Journal(out / f".{profile_name}.fit", fit_key(loaded, made, way.settings))
    if len(journal):
        console.print(f"going on with a fit that was interrupted: {len(journal)} of its results are kept")
    with progress_bars() as progress:
        fitted = way.fit(loaded, made, profile_name, command, journal, progress)
        # Now: what follows takes a while, and is not the profile. One that changes nothing could not be loaded.
        path = None if fitted.profile.changes_nothing else save_profile(fitted.profile, out)
        variants = variants_of(source, loaded.tokenizer, seed, loaded.context_length)
        report = fitted.report(loaded, made, variants, command, progress)
    page, _ = write_report(report, out)
    journal.discard()
    fitted.show(console)
    if path is None:
        console.print("no profile is written: nothing that was tried is better on dev and allowed", style="yellow")
    console.print(f"wrote {page}" if path is None else f"wrote {path} and {page}", soft_wrap=True)


def _refuse(method: str, options: _Options) -> None:
    """Refuse options that ``method`` would ignore."""
    given = [option for option, value, default in options if value != default]
    if given:
        raise ConfigError(f"{given[0]} means nothing to method {method}; leave it out or choose another method")


def _source(task: str | None, task_file: str | None) -> str:
    if (task is None) == (task_file is None):
        said = "neither is given" if task is None else f"given are {task!r} and {task_file!r}"
        raise ConfigError(f"the task is named once, as TASK or as --task TASK: {said}")
    return task or task_file or ""


def _checked_name(name: str) -> str:
    from pydantic import TypeAdapter, ValidationError

    from steering_profiles.schema import BASELINE, ProfileName

    try:
        checked: str = TypeAdapter(ProfileName).validate_python(name)
    except ValidationError as exc:
        raise ConfigError(f"name is {name!r}; allowed: lower-case letters, digits, '.', '_' and '-'") from exc
    if checked == BASELINE:
        raise ConfigError(f"name is {name!r}, which names the unsteered model; choose another")
    return checked


def _command(source: str, out: Path, options: _Options) -> str:
    """Return the command that makes the profile again; an ``(option, value, default)`` at its default is left out."""
    words = ["steer", "fit", *(["--task"] if source.endswith(".jsonl") else []), source, "--out", str(out)]
    for option, value, default in options:
        if value != default:
            words += [option] if value is True else [option, str(value)]
    return shlex.join(words)
