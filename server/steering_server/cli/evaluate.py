"""``steer evaluate``: how much a profile helps, how far that reaches, and what else it changes."""

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from steering_server.cli.destinations import require_writable_file, require_writable_folder
from steering_server.cli.model_options import CacheDir, DeviceMap, Dtype, MaxMemory, Model, model_settings
from steering_server.cli.progress import progress_bars

if TYPE_CHECKING:
    from steering_profiles.schema import Profile

_GENERAL = "Besides the task"


def evaluate(
    profile: Annotated[str, typer.Argument(help="Name of a profile, or path of its .json file.")],
    task: Annotated[
        str | None,
        typer.Option(
            help="What is measured: parentheses, arithmetic, factual-recall or one of its domains, or a file of your "
            "own: FILE.jsonl. (default: the task that the profile was fitted to)"
        ),
    ] = None,
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
    report: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write a report to this folder: NAME.html and NAME.md.")
    ] = None,
    force: Annotated[bool, typer.Option(help="Apply it although it was made for another model.")] = False,
    exhaustive: Annotated[
        bool,
        typer.Option(
            "--exhaustive",
            help="Also every prompt of the task's own shape, and which of them are answered wrong (parentheses alone).",
        ),
    ] = False,
    calibration: Annotated[
        bool,
        typer.Option(
            "--calibration",
            help="Also measure P(correct), NLL and calibration error, beside a temperature tuned on dev.",
        ),
    ] = False,
    side_effects: Annotated[
        bool,
        typer.Option(
            "--side-effects/--no-side-effects",
            help="Whether to measure how well other text is predicted.",
            rich_help_panel=_GENERAL,
        ),
    ] = True,
    run_humaneval: Annotated[
        bool,
        typer.Option(
            "--run-humaneval",
            help="Let the model write HumanEval's programs and run them, in a sandbox: pass@1.",
            rich_help_panel=_GENERAL,
        ),
    ] = False,
    humaneval_problems: Annotated[
        int | None, typer.Option(min=1, help="Only the first so many of its 164 problems.", rich_help_panel=_GENERAL)
    ] = None,
    model: Model = None,
    dtype: Dtype = None,
    device_map: DeviceMap = None,
    max_memory: MaxMemory = None,
    cache_dir: CacheDir = None,
) -> None:
    """Measure a profile: accuracy without and with it, and what else it changes.

    Accuracy on the test prompts, and on prompts of shapes that no fit saw,
    which tell how far it generalises. Then how well the model predicts text
    that has nothing to do with the task: prose, code, and the reference
    solutions of HumanEval where its problems are installed.

    [dim]steer evaluate parentheses[/]
    [dim]steer evaluate parentheses --strength 0.5 --no-side-effects[/]
    [dim]steer evaluate parentheses --exhaustive[/]
    [dim]steer evaluate factual-recall --task capitals --calibration[/]
    [dim]steer evaluate parentheses --run-humaneval --humaneval-problems 40[/]
    """
    from steering_profiles.effective import effective
    from steering_profiles.evaluation import (
        Accuracy,
        CalibrationComparison,
        TokenPredictor,
        compare_calibration,
        humaneval,
        measure_side_effects,
        tune_temperature,
    )
    from steering_profiles.evaluation.sandbox import require_sandbox
    from steering_profiles.models import load_model
    from steering_profiles.reports import Report, recorded_grid, write_report
    from steering_profiles.schema import strength_text
    from steering_profiles.steering import AppliedProfile
    from steering_profiles.tasks import (
        every_prompt_of,
        make_task,
        require_countable,
        require_known,
        task_name,
        variants_of,
    )
    from steering_profiles.tokenization import Vocabulary
    from steering_profiles.validate import require_fit
    from steering_server.cli.measurements import Measurement, WrongAnswer, wrong_answers
    from steering_server.cli.named import find_profile
    from steering_server.config import load_settings
    from steering_server.errors import ConfigError

    console = Console()
    applied = AppliedProfile(find_profile(profile, folder), strength)
    task = _task_of_fit(applied.profile) if task is None else task
    require_known(task)
    if exhaustive:
        require_countable(task)
    if output is not None:
        require_writable_file("--json", output)
    if report is not None:
        require_writable_folder("--report", report)
    if humaneval_problems is not None and not run_humaneval:
        raise ConfigError("--humaneval-problems says how many problems --run-humaneval takes, which is not given")
    problems = humaneval.load_problems(humaneval_problems) if run_humaneval else ()
    if problems:
        require_sandbox()
    seed = _seed_of_fit(applied.profile, task_name(task)) if seed is None else seed
    settings = load_settings(**model_settings(model, dtype, device_map, max_memory, cache_dir))
    with Console(stderr=True).status("loading the model"):
        loaded = load_model(settings.model_source)
    require_fit(applied.profile, loaded.identity, loaded.anatomy.neurons_refused, force=force)
    for warning in effective([(applied.profile, strength)], loaded.dtype_name).warnings:
        console.print(warning, style="yellow", markup=False)
    made = make_task(task, loaded.tokenizer, seed, loaded.context_length)
    for reason in made.left_out:
        console.print(f"left out: {reason}", style="yellow", markup=False)
    sets = {"test": made.test} | variants_of(task, loaded.tokenizer, seed, loaded.context_length)
    every = every_prompt_of(task, loaded.tokenizer, loaded.context_length) if exhaustive else ()
    results: dict[str, tuple[Accuracy, Accuracy]] = {}
    wrong: list[WrongAnswer] = []
    with progress_bars() as progress:
        with TokenPredictor(loaded) as predictor:
            if every:
                progress.stage("measuring every prompt", 2 * len(every))
                plain = predictor.predict(every, progress=progress)
                steered = predictor.predict(every, (applied,), progress)
                results["every prompt"] = (Accuracy.of(every, plain), Accuracy.of(every, steered))
                wrong = wrong_answers(every, steered, Vocabulary(loaded.tokenizer))
            progress.stage("measuring", 2 * sum(len(examples) for examples in sets.values()))
            for name, examples in sets.items():
                results[name] = (
                    predictor.accuracy(examples, progress=progress),
                    predictor.accuracy(examples, (applied,), progress),
                )
            compared: dict[str, CalibrationComparison] = {}
            if calibration:
                progress.stage("measuring calibration", 2 * len(made.dev) + 2 * sum(map(len, sets.values())))
                temperature, _ = tune_temperature(predictor, made.dev, progress)
                for name, examples in sets.items():
                    compared[name] = compare_calibration(predictor, examples, (applied,), temperature, progress)
        effects = measure_side_effects(loaded, (applied,), progress) if side_effects else None
        passed = humaneval.pass_at_1(loaded, problems, (applied,), progress) if problems else None
    measured = Measurement(
        f"{applied.profile.name} ({applied.profile.summary}) at strength {strength_text(strength)}",
        results,
        effects,
        passed,
        compared,
        wrong,
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
        page, _ = write_report(
            Report(
                profile=applied.profile,
                command=shlex.join(
                    ["steer", "evaluate", profile, "--task", task, "--strength", strength_text(strength)]
                    + ["--calibration"] * calibration
                ),
                accuracy=results,
                side_effects=effects,
                grid=recorded_grid(applied.profile),
                calibration=compared,
                strength=strength,
            ),
            report,
        )
        console.print(f"wrote {page}", soft_wrap=True)


def _task_of_fit(profile: "Profile") -> str:
    """Return the task that ``profile`` was fitted to.

    Raises:
        ConfigError: it was fitted to none that can be named here.
    """
    from steering_profiles.tasks import TASKS
    from steering_server.errors import ConfigError

    fitted = profile.provenance.task if profile.provenance is not None else None
    if fitted in TASKS:
        return fitted
    said = "does not say what it was fitted to" if fitted is None else f"was fitted to {fitted!r}, a file of your own"
    raise ConfigError(f"profile {profile.name!r} {said}; name what is to be measured with --task")


def _seed_of_fit(profile: "Profile", task: str) -> int:
    """Return the seed whose test prompts the fit of ``profile`` did not see; any will do if it was fitted elsewhere."""
    provenance = profile.provenance
    return provenance.seed if provenance is not None and provenance.task == task else 0
