"""``steer fit``: make a profile for a task."""

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from steering_server.cli.destinations import require_writable_folder
from steering_server.cli.model_options import CacheDir, DeviceMap, Dtype, MaxMemory, Model, model_settings
from steering_server.cli.progress import progress_bars
from steering_server.errors import ConfigError

if TYPE_CHECKING:
    from steering_profiles.fitting import FitResult, FitSettings
    from steering_profiles.fitting.choice import Choice
    from steering_profiles.fitting.components import Kind
    from steering_profiles.fitting.grid import Measured
    from steering_profiles.tasks import Task

_SEARCH = "Search"

_KINDS: "dict[str, tuple[Kind, ...]]" = {"heads": ("head",), "neurons": ("neuron",), "both": ("head", "neuron")}


def fit(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write NAME.json and its report to.")],
    task: Annotated[
        str | None,
        typer.Argument(metavar="[TASK]", help="What the model should get right: parentheses or arithmetic."),
    ] = None,
    task_file: Annotated[
        str | None,
        typer.Option("--task", metavar="TASK", help="The same as TASK; also a file of your own: FILE.jsonl."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="The profile's name. (default: the task's)")] = None,
    seed: Annotated[int, typer.Option(help="Decides which prompts are train, dev and test.")] = 0,
    method: Annotated[
        str,
        typer.Option(
            help="stepwise raises each scale by what the answers gain; paper, circuit and random take the k best of an "
            "order and one scale for all: RASteer's, that of activation patching, a random one.",
            rich_help_panel=_SEARCH,
        ),
    ] = "stepwise",
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
    of them to scale, and by how much, is chosen on its dev prompts. The figures
    printed are those of its test prompts, which neither saw. A report beside the
    profile shows all of it. A fit that was interrupted goes on where it was.

    [dim]steer fit parentheses --out my-profiles[/]
    [dim]steer fit --task my-questions.jsonl --out my-profiles[/]
    [dim]steer serve --profiles my-profiles[/]
    """
    from steering_profiles.fitting import Journal, fit_key
    from steering_profiles.fitting import fit as run_fit
    from steering_profiles.models import EMBEDDED, load_model
    from steering_profiles.reports import report_of_fit, write_report
    from steering_profiles.store import save_profile
    from steering_profiles.tasks import make_task, require_known, task_name, variants_of
    from steering_server.config import load_settings

    source = _source(task, task_file)
    require_known(source)
    profile_name = _checked_name(name or task_name(source))
    settings = _settings(
        method, components, most_components, most_scale, metric, accuracy_threshold, k or (), alpha or ()
    )
    require_writable_folder("--out", out)
    server_settings = load_settings(**model_settings(model, dtype, device_map, max_memory, cache_dir))
    command = _command(
        source,
        out,
        [
            ("--name", name, None),
            ("--seed", seed, 0),
            ("--method", method, "stepwise"),
            ("--components", components, "heads"),
            ("--max-components", most_components, 20),
            ("--max-scale", most_scale, 1.5),
            ("--metric", metric, "f1"),
            ("--accuracy-threshold", accuracy_threshold, 0.7),
            *(("--k", value, None) for value in k or ()),
            *(("--alpha", value, None) for value in alpha or ()),
            ("--model", server_settings.model, EMBEDDED),  # not the option: it may come from the environment
            ("--dtype", server_settings.dtype, "auto"),
        ],
    )

    console = Console()
    with Console(stderr=True).status("loading the model"):
        loaded = load_model(server_settings.model_source)
    made = make_task(source, loaded.tokenizer, seed)
    for reason in made.left_out:
        console.print(f"left out: {reason}", style="yellow", markup=False)
    journal = Journal(out / f".{profile_name}.fit", fit_key(loaded, made, settings))
    if len(journal):
        console.print(f"going on with a fit that was interrupted: {len(journal)} of its results are kept")
    with progress_bars() as progress:
        result = run_fit(
            loaded, made, name=profile_name, command=command, settings=settings, journal=journal, progress=progress
        )
        path = save_profile(result.profile, out)  # now: what follows takes a while, and is not the profile
        others = [
            run_fit(
                loaded,
                made,
                name=profile_name,
                command=command,
                settings=other,
                ranking=result.ranking,
                progress=progress,
            )
            for other in (_other_methods(settings, made) if compare else ())
        ]
        variants = variants_of(source, loaded.tokenizer, seed)
        report = report_of_fit(loaded, made, variants, result, others, progress)
    page, _ = write_report(replace(report, command=command + " --compare" * compare), out)
    journal.discard()
    _show(console, result)
    console.print(f"wrote {path} and {page}", soft_wrap=True)


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


def _settings(
    method: str,
    components: str,
    most_components: int,
    most_scale: float,
    metric: str,
    accuracy_threshold: float,
    top_k: Sequence[int],
    alphas: Sequence[float],
) -> "FitSettings":
    from steering_profiles.fitting import METHODS, FitSettings, StepwiseSettings
    from steering_profiles.fitting.grid import ALPHA, TOP_K
    from steering_profiles.fitting.ranking import METRICS

    for option, value, allowed in (
        ("method", method, METHODS),
        ("components", components, tuple(_KINDS)),
        ("metric", metric, METRICS),
    ):
        if value not in allowed:
            raise ConfigError(f"{option} is {value!r}; allowed: {', '.join(allowed)}")
    try:
        return FitSettings(
            method=next(known for known in METHODS if known == method),
            kinds=_KINDS[components],
            metric=next(known for known in METRICS if known == metric),
            accuracy_threshold=accuracy_threshold,
            top_k=tuple(top_k) or TOP_K,
            alphas=tuple(alphas) or ALPHA,
            stepwise=StepwiseSettings(most_components=most_components, most_scale=most_scale),
        )
    except ValueError as exc:
        raise ConfigError(str(exc)) from exc


def _other_methods(settings: "FitSettings", task: "Task") -> "list[FitSettings]":
    """Return the settings of all other methods that this task and these components can be fitted with."""
    from steering_profiles.fitting import METHODS

    heads_only = settings.kinds == ("head",)
    possible = {"stepwise": True, "paper": True, "circuit": heads_only and bool(task.pairs), "random": heads_only}
    return [replace(settings, method=method) for method in METHODS if method != settings.method and possible[method]]


def _command(source: str, out: Path, options: Iterable[tuple[str, object, object]]) -> str:
    """Return the command that makes the profile again; an ``(option, value, default)`` at its default is left out."""
    words = ["steer", "fit", *(["--task"] if source.endswith(".jsonl") else []), source, "--out", str(out)]
    for option, value, default in options:
        if value != default:
            words += [option, str(value)]
    return shlex.join(words)


def _show(console: Console, result: "FitResult") -> None:
    choice = result.choice
    console.print(_grid_table(choice.grid) if choice.grid else _path_table(choice))
    if not choice.scales:
        console.print("nothing is better on dev than the plain model: this profile changes nothing", style="yellow")
    scaled = ", ".join(f"{component} x {scale:g}" for component, scale in sorted(choice.scales.items()))
    console.print(f"{result.profile.summary}: {scaled or 'none'}")
    table = Table("sub-task", "without", "with", title="test accuracy, %")
    after = result.after.percent
    for group, before in result.before.percent.items():
        table.add_row(group, f"{before:.1f}", f"{after[group]:.1f}")
    console.print(table)


def _path_table(choice: "Choice") -> Table:
    columns = ("step", "components", "sum of (scale - 1)", "right, %", "other text's NLL")
    table = Table(*columns, title="the search, on dev and other shapes (bold: chosen)")
    for point in choice.path:
        right = 100 * point.accuracy.right / point.accuracy.asked
        cells = (point.step, len(point.scales), f"{point.disturbance:g}", f"{right:.1f}", f"{100 * point.drift:+.2f}%")
        style = "bold" if point.step == choice.facts["step"] else None
        table.add_row(*map(str, cells), style=style)
    return table


def _grid_table(grid: "Sequence[Measured]") -> Table:
    points = {(m.point.k, m.point.alpha): m.accuracy for m in grid}
    alphas = sorted({alpha for k, alpha in points if k})
    table = Table("scaled", *(f"x{alpha:g}" for alpha in alphas), title="dev accuracy, % (dim: ruled out early)")
    most = max(accuracy.asked for accuracy in points.values())
    for k in sorted({k for k, _ in points}):
        row = [points[(k, alpha) if k else (0, 1.0)] for alpha in alphas]
        cells = [(f"{100 * accuracy.right / accuracy.asked:.0f}", accuracy.asked == most) for accuracy in row]
        table.add_row(str(k), *(text if whole else f"[dim]{text}[/]" for text, whole in cells))
    return table
