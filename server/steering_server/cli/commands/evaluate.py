"""``steer evaluate``: accuracy without and with a profile, on several prompt formats, and its side effects."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from steering_server.cli.destinations import require_writable_file, require_writable_folder
from steering_server.cli.loading import open_model
from steering_server.cli.model_options import CacheDir, DeviceMap, Dtype, MaxMemory, Model, model_settings
from steering_server.cli.options import Option, words
from steering_server.cli.report_plots import can_draw_plots

if TYPE_CHECKING:
    from steering_profiles.composition import ProfileAtStrength
    from steering_profiles.evaluation.humaneval import Problem
    from steering_profiles.schema import Profile
    from steering_server.cli.measurements import Measurement

_GENERAL = "Other text"


def evaluate(
    profile: Annotated[str, typer.Argument(help="Name of a profile, or path of its .json file.")],
    task: Annotated[
        str | None,
        typer.Option(
            help="Task to measure: parentheses, arithmetic, arithmetic-whole, factual-recall or one of its domains, or "
            "a file of your own, FILE.jsonl. (default: the task that the profile was fitted to)"
        ),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option("--profiles", metavar="DIR", help="Folder of your own profiles, in addition to the shipped ones."),
    ] = None,
    strength: Annotated[float, typer.Option(help="Strength of the profile.")] = 1.0,
    seed: Annotated[
        int | None,
        typer.Option(
            help="Seed of the split, which decides the test prompts. (default: the seed of the fit; with another one "
            "the fit has seen some of them)"
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="File to write the measurements to.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder to write a report to: NAME.html and NAME.md.")
    ] = None,
    force: Annotated[
        bool, typer.Option(help="Apply a profile that was made for another model, where the shapes permit.")
    ] = False,
    exhaustive: Annotated[
        bool,
        typer.Option(
            "--exhaustive",
            help="Also ask every prompt of the task's own format and name those that are answered wrong (only for the "
            "task parentheses).",
        ),
    ] = False,
    calibration: Annotated[
        bool,
        typer.Option(
            "--calibration",
            help="Also measure P(correct), NLL and calibration error, and compare with a temperature tuned on dev.",
        ),
    ] = False,
    side_effects: Annotated[
        bool,
        typer.Option(
            "--side-effects/--no-side-effects",
            help="Whether to measure the effect on what has nothing to do with the task: other text, last words of "
            "sentences, minimal pairs of grammar.",
            rich_help_panel=_GENERAL,
        ),
    ] = True,
    run_humaneval: Annotated[
        bool,
        typer.Option(
            "--run-humaneval",
            help="Let the model solve HumanEval's problems and run its programs in a sandbox (pass@1). Too coarse to "
            "show harm to a model that solves few: one problem of 164 is 0.6 points.",
            rich_help_panel=_GENERAL,
        ),
    ] = False,
    humaneval_problems: Annotated[
        int | None,
        typer.Option(min=1, help="Number of problems, taken from the first of the 164.", rich_help_panel=_GENERAL),
    ] = None,
    model: Model = None,
    dtype: Dtype = None,
    device_map: DeviceMap = None,
    max_memory: MaxMemory = None,
    cache_dir: CacheDir = None,
) -> None:
    """Measure a profile: accuracy without and with it, and its side effects.

    Accuracy is measured on the test prompts and on held-out prompt formats,
    which show how far the profile generalises. Side effects are changes in the
    prediction of text that has nothing to do with the task: prose, code, and the
    reference solutions of HumanEval if its problems are installed; the last words
    of sentences; and the choice between a good and a bad sentence. One table shows
    them with intervals, what is worse first.

    [dim]steer evaluate parentheses[/]
    [dim]steer evaluate parentheses --strength 0.5 --no-side-effects[/]
    [dim]steer evaluate parentheses --exhaustive[/]
    [dim]steer evaluate factual-recall --task capitals --calibration[/]
    [dim]steer evaluate parentheses --run-humaneval --humaneval-problems 40[/]
    """
    from steering_profiles.composition import ProfileAtStrength
    from steering_profiles.store import find_profile
    from steering_profiles.tasks import require_countable, require_known, require_next_tokens, task_name
    from steering_server.config import load_model_source
    from steering_server.errors import ConfigError

    applied = ProfileAtStrength(find_profile(profile, folder), strength)
    task = _task_of_fit(applied.profile) if task is None else task
    require_known(task)
    if exhaustive:
        require_countable(task)
    if calibration:
        require_next_tokens(task, "--calibration")
    if humaneval_problems is not None and not run_humaneval:
        raise ConfigError("--humaneval-problems is given without --run-humaneval; give both or neither")
    source = load_model_source(**model_settings(model, dtype, device_map, max_memory, cache_dir))
    if output is not None:
        require_writable_file("--json", output)
    console = Console()
    plots = False
    if report is not None:
        require_writable_folder("--report", report)
        plots = can_draw_plots(console)
    seed = _seed_of_fit(applied.profile, task_name(task)) if seed is None else seed
    problems = _problems(humaneval_problems) if run_humaneval else ()
    loaded = open_model(source)

    from steering_profiles.compatibility import require_compatible
    from steering_server.cli.evaluating import EvaluationOptions, measure

    require_compatible(applied.profile, loaded.identity, loaded.anatomy.refuses(applied.profile), force=force)
    measured = measure(
        loaded, applied, task, seed, EvaluationOptions(exhaustive, calibration, side_effects, problems), console
    )
    measured.show(console)
    if output is not None:
        about = {
            "profile": applied.profile.name,
            "content_hash": applied.key[0],
            "strength": strength,
            "task": task,
            "seed": seed,
        }
        output.write_text(json.dumps(about | measured.record(), indent=2) + "\n")
    if report is not None:
        page = _write_report(applied, profile, task, measured, report, plots)
        console.print(f"wrote {page}", soft_wrap=True)


def _problems(most: int | None) -> "Sequence[Problem]":
    """Return the first ``most`` problems of HumanEval, or all of them.

    Raises:
        EvaluationError: the problems are not installed, or the sandbox cannot run programs on this machine.
    """
    from steering_profiles.evaluation import humaneval
    from steering_profiles.evaluation.sandbox import require_sandbox

    problems = humaneval.load_problems(most)
    require_sandbox()
    return problems


def _write_report(
    applied: "ProfileAtStrength", profile: str, task: str, measured: "Measurement", folder: Path, plots: bool
) -> Path:
    """Write a report of the measurement to ``folder``; return the path of its page. ``profile`` is as it was given."""
    from steering_profiles.fields import strength_text
    from steering_profiles.reports import Report, recorded_grid, write_report

    options = [
        Option("--task", task),
        Option("--strength", strength_text(applied.strength)),
        Option("--calibration", bool(measured.calibration), False),
    ]
    page, _ = write_report(
        Report(
            profile=applied.profile,
            command=shlex.join(["steer", "evaluate", profile, *words(options)]),
            accuracy=measured.sets,
            side_effects=measured.side_effects,
            pass_at_1=measured.pass_at_1,
            grid=recorded_grid(applied.profile),
            calibration=measured.calibration,
            strength=applied.strength,
        ),
        folder,
        plots,
    )
    return page


def _task_of_fit(profile: "Profile") -> str:
    """Return the task that ``profile`` was fitted to.

    Raises:
        ConfigError: the profile does not name a built-in task.
    """
    from steering_profiles.tasks import TASKS
    from steering_server.errors import ConfigError

    fitted = profile.provenance.task if profile.provenance is not None else None
    if fitted in TASKS:
        return fitted
    said = "does not name its task" if fitted is None else f"was fitted to {fitted!r}, a file of your own"
    raise ConfigError(f"profile {profile.name!r} {said}; name the task to measure with --task")


def _seed_of_fit(profile: "Profile", task: str) -> int:
    """Return the seed whose test prompts the fit of ``profile`` did not see; 0 if it was fitted to another task."""
    provenance = profile.provenance
    return provenance.seed if provenance is not None and provenance.task == task else 0
