"""``steer evaluate``: how much a profile helps, and how far that reaches."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from steering_server.cli.destinations import require_writable_file
from steering_server.cli.model_options import CacheDir, DeviceMap, Dtype, MaxMemory, Model, model_settings
from steering_server.cli.progress import progress_bars

if TYPE_CHECKING:
    from steering_profiles.evaluation import Accuracy
    from steering_profiles.schema import Profile


def evaluate(
    profile: Annotated[str, typer.Argument(help="Name of a profile, or path of its .json file.")],
    task: Annotated[str, typer.Option(help="What is measured: parentheses.")] = "parentheses",
    folder: Annotated[
        Path | None, typer.Option("--profiles", metavar="DIR", help="Folder of your own profiles.")
    ] = None,
    strength: Annotated[float, typer.Option(help="Strength at which it is applied.")] = 1.0,
    seed: Annotated[
        int | None,
        typer.Option(
            help="Decides which prompts are test. (default: the fit's own; another draws some that the fit has seen)"
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the figures here too.")] = None,
    force: Annotated[bool, typer.Option(help="Apply it although it was made for another model.")] = False,
    model: Model = None,
    dtype: Dtype = None,
    device_map: DeviceMap = None,
    max_memory: MaxMemory = None,
    cache_dir: CacheDir = None,
) -> None:
    """Measure a profile: accuracy without and with it.

    On the test prompts, and on prompts of shapes that no fit saw, which tell
    how far it generalises.

    [dim]steer evaluate parentheses[/]
    """
    from steering_profiles.evaluation import TokenPredictor
    from steering_profiles.models import load_model
    from steering_profiles.steering import AppliedProfile
    from steering_profiles.tasks import TASKS, VARIANTS, require_known
    from steering_profiles.validate import require_fit
    from steering_server.config import load_settings

    require_known(task)
    if output is not None:
        require_writable_file("--json", output)
    applied = AppliedProfile(_find(profile, folder), strength)
    seed = _seed_of_fit(applied.profile, task) if seed is None else seed
    settings = load_settings(**model_settings(model, dtype, device_map, max_memory, cache_dir))
    with Console(stderr=True).status("loading the model"):
        loaded = load_model(settings.model_source)
    require_fit(applied.profile, loaded.identity, force=force)
    made = TASKS[task](loaded.tokenizer, seed)
    for reason in made.left_out:
        Console().print(f"left out: {reason}", style="yellow", markup=False)
    sets = {"test": made.test} | VARIANTS[task](loaded.tokenizer, seed)
    results: dict[str, tuple[Accuracy, Accuracy]] = {}
    with progress_bars() as progress, TokenPredictor(loaded) as predictor:
        progress.stage("measuring", 2 * sum(len(examples) for examples in sets.values()))
        for name, examples in sets.items():
            results[name] = (
                predictor.accuracy(examples, progress=progress),
                predictor.accuracy(examples, (applied,), progress),
            )
    Console().print(_table(applied.profile, strength, results))
    if output is not None:
        figures = {
            name: {"without": before.percent, "with": after.percent} for name, (before, after) in results.items()
        }
        record = {
            "profile": applied.profile.name,
            "content_hash": applied.key[0],
            "strength": strength,
            "task": task,
            "seed": seed,
        }
        output.write_text(json.dumps(record | {"accuracy": figures}, indent=2) + "\n")


def _find(profile: str, folder: Path | None) -> "Profile":
    from steering_profiles.store import Catalogue, load_profile

    if profile.endswith(".json"):
        return load_profile(profile)
    return Catalogue.open(folder)[profile].profile


def _seed_of_fit(profile: "Profile", task: str) -> int:
    """Return the seed whose test prompts the fit of ``profile`` did not see; any will do if it was fitted elsewhere."""
    provenance = profile.provenance
    return provenance.seed if provenance is not None and provenance.task == task else 0


def _table(profile: "Profile", strength: float, results: "dict[str, tuple[Accuracy, Accuracy]]") -> Table:
    groups = list(next(iter(results.values()))[0].counts)
    title = f"{profile.name} ({profile.summary}) at strength {strength:g}: accuracy without -> with, %"
    table = Table("prompts", *groups, "all", title=title)
    for name, (before, after) in results.items():
        cells = [f"{before.percent[group]:.0f} -> {after.percent[group]:.0f}" for group in groups]
        overall = [100 * accuracy.right / accuracy.asked for accuracy in (before, after)]
        table.add_row(name, *cells, f"{overall[0]:.1f} -> {overall[1]:.1f}")
    return table
