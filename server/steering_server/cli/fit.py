"""``steer fit``: make a profile for a task."""

import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from steering_server.cli.destinations import require_writable_folder
from steering_server.cli.model_options import CacheDir, DeviceMap, Dtype, MaxMemory, Model, model_settings
from steering_server.cli.progress import progress_bars

if TYPE_CHECKING:
    from steering_profiles.fitting import FitResult


def fit(
    task: Annotated[str, typer.Argument(help="What the model should get right: parentheses.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write NAME.json to.")],
    name: Annotated[str | None, typer.Option(help="The profile's name. (default: the task's)")] = None,
    seed: Annotated[int, typer.Option(help="Decides which prompts are train, dev and test.")] = 0,
    metric: Annotated[str, typer.Option(help="What heads are ranked by: f1, recall or precision.")] = "f1",
    k: Annotated[list[int] | None, typer.Option(help="Heads to try, may be repeated. (default: the paper's)")] = None,
    alpha: Annotated[
        list[float] | None, typer.Option(help="Scales to try, may be repeated. (default: the paper's)")
    ] = None,
    model: Model = None,
    dtype: Dtype = None,
    device_map: DeviceMap = None,
    max_memory: MaxMemory = None,
    cache_dir: CacheDir = None,
) -> None:
    """Fit a steering profile: find the heads that promote the right answer.

    Heads are ranked on the task's train prompts. How many to scale, and by
    how much, is chosen on its dev prompts. The figures printed are those of
    its test prompts, which neither saw.

    [dim]steer fit parentheses --out my-profiles[/]
    [dim]steer serve --profiles my-profiles[/]
    """
    from pydantic import TypeAdapter, ValidationError

    from steering_profiles.fitting import FitSettings, fit_heads
    from steering_profiles.fitting.grid import ALPHA, TOP_K
    from steering_profiles.fitting.ranking import METRICS
    from steering_profiles.models import EMBEDDED, load_model
    from steering_profiles.schema import ProfileName
    from steering_profiles.store import save_profile
    from steering_profiles.tasks import TASKS, require_known
    from steering_server.config import load_settings
    from steering_server.errors import ConfigError

    require_known(task)
    chosen_metric = next((known for known in METRICS if known == metric), None)
    if chosen_metric is None:
        raise ConfigError(f"metric is {metric!r}; allowed: {', '.join(METRICS)}")
    profile_name = name or task
    try:
        TypeAdapter(ProfileName).validate_python(profile_name)
    except ValidationError as exc:
        raise ConfigError(f"name is {profile_name!r}; allowed: lower-case letters, digits, '.', '_' and '-'") from exc
    try:
        search = FitSettings(tuple(k or TOP_K), tuple(alpha or ALPHA), chosen_metric)
    except ValueError as exc:
        raise ConfigError(str(exc)) from exc
    require_writable_folder("--out", out)

    console = Console()
    settings = load_settings(**model_settings(model, dtype, device_map, max_memory, cache_dir))
    with Console(stderr=True).status("loading the model"):
        loaded = load_model(settings.model_source)
    made = TASKS[task](loaded.tokenizer, seed)
    for reason in made.left_out:
        console.print(f"left out: {reason}", style="yellow", markup=False)
    with progress_bars() as progress:
        result = fit_heads(
            loaded,
            made,
            name=profile_name,
            command=_command(
                task,
                out,
                [
                    ("--name", name, None),
                    ("--seed", seed, 0),
                    ("--metric", metric, "f1"),
                    *(("--k", value, None) for value in k or ()),
                    *(("--alpha", value, None) for value in alpha or ()),
                    ("--model", settings.model, EMBEDDED),  # not the option: it may come from the environment
                    ("--dtype", settings.dtype, "auto"),
                ],
            ),
            settings=search,
            progress=progress,
        )
    path = save_profile(result.profile, out)
    _report(console, result)
    console.print(f"wrote {path}", markup=False)


def _command(task: str, out: Path, options: Iterable[tuple[str, object, object]]) -> str:
    """Return the command that makes the profile again; an ``(option, value, default)`` at its default is left out."""
    words = ["steer", "fit", task, "--out", str(out)]
    for option, value, default in options:
        if value != default:
            words += [option, str(value)]
    return shlex.join(words)


def _report(console: Console, result: "FitResult") -> None:
    console.print(_grid_table(result))
    point = result.chosen.point
    if point.k:
        console.print(f"chosen on dev: the top {point.k} heads, scaled by {point.alpha:g}")
    else:
        console.print("nothing is better on dev than the plain model: this profile changes nothing", style="yellow")
    heads = ", ".join(f"L{head.layer}H{head.head}" for head in result.profile.heads)
    console.print(f"heads: {heads or 'none'}")
    table = Table("sub-task", "without", "with", title="test accuracy, %")
    after = result.after.percent
    for group, before in result.before.percent.items():
        table.add_row(group, f"{before:.1f}", f"{after[group]:.1f}")
    console.print(table)


def _grid_table(result: "FitResult") -> Table:
    points = {(m.point.k, m.point.alpha): m.accuracy for m in result.grid}
    alphas = sorted({alpha for k, alpha in points if k})
    table = Table("heads", *(f"x{alpha:g}" for alpha in alphas), title="dev accuracy, % (dim: ruled out early)")
    most = max(accuracy.asked for accuracy in points.values())
    for k in sorted({k for k, _ in points}):
        row = [points[(k, alpha) if k else (0, 1.0)] for alpha in alphas]
        cells = [(f"{100 * accuracy.right / accuracy.asked:.0f}", accuracy.asked == most) for accuracy in row]
        table.add_row(str(k), *(text if whole else f"[dim]{text}[/]" for text, whole in cells))
    return table
