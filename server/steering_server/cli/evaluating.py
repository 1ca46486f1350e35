"""The work of ``steer evaluate``: the measurements of a profile on its task and on other text."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console

from steering_profiles.effective import effective
from steering_profiles.evaluation import (
    Accuracy,
    CalibrationComparison,
    FinalLayerReplay,
    TokenPredictor,
    humaneval,
    measure_side_effects,
    tune_and_compare,
)
from steering_profiles.fields import strength_text
from steering_profiles.models import LoadedModel
from steering_profiles.progress import Progress
from steering_profiles.steering import UNSTEERED, ProfileAtStrength, Steering, divergence_layer
from steering_profiles.tasks import Example, every_prompt_of, held_out_formats_of, make_task
from steering_profiles.tokenization import Vocabulary
from steering_server.cli.measurements import Measurement, WrongAnswer, wrong_answers
from steering_server.cli.progress import progress_bars


@dataclass(frozen=True)
class EvaluationOptions:
    """Measurements to make besides accuracy on the test prompts and on held-out formats."""

    exhaustive: bool
    """Whether to ask every prompt of the task's own format."""
    calibration: bool
    side_effects: bool
    problems: Sequence[humaneval.Problem] = ()
    """Problems of HumanEval that the model solves; none if empty."""


def measure(
    loaded: LoadedModel, applied: ProfileAtStrength, task: str, seed: int, options: EvaluationOptions, console: Console
) -> Measurement:
    """Measure the model without and with a profile. Prints warnings, and prompts that are left out."""
    steering = Steering((applied,))
    for warning in effective(steering, loaded.dtype_name).warnings:
        console.print(warning, style="yellow", markup=False)
    made = make_task(task, loaded.tokenizer, seed, loaded.context_length)
    if options.calibration:
        made.require_next_tokens("--calibration")
    for reason in made.left_out:
        console.print(f"left out: {reason}", style="yellow", markup=False)
    sets = {"test": made.test} | held_out_formats_of(task, loaded.tokenizer, seed, loaded.context_length)
    every = every_prompt_of(task, loaded.tokenizer, loaded.context_length) if options.exhaustive else ()
    results: dict[str, tuple[Accuracy, Accuracy]] = {}
    wrong: list[WrongAnswer] = []
    compared: dict[str, CalibrationComparison] = {}
    # Of a profile for the final layer, all passes over the same prompts but the first run that layer only.
    sizes = loaded.anatomy.sizes
    of_final_layer = divergence_layer(steering, UNSTEERED, sizes) >= sizes.layers - 1
    replay = FinalLayerReplay(loaded) if of_final_layer else None
    with progress_bars() as progress:
        with TokenPredictor(loaded, replay) as predictor:
            if every:
                results["every prompt"], wrong = _every(
                    predictor, every, steering, Vocabulary(loaded.tokenizer), progress
                )
            progress.stage("measuring", 2 * sum(len(examples) for examples in sets.values()))
            for name, examples in sets.items():
                results[name] = (
                    predictor.accuracy(examples, progress=progress),
                    predictor.accuracy(examples, steering, progress),
                )
            if options.calibration:
                dev = {"test": made.dev, **{name: some for name, some in made.fit_formats.items() if name in sets}}
                passes = 4 * sum(map(len, dev.values())) + 2 * sum(map(len, sets.values()))
                progress.stage("measuring calibration", passes)
                compared = tune_and_compare(predictor, dev, sets, steering, progress)
        effects = measure_side_effects(loaded, steering, progress, replay) if options.side_effects else None
        passed = humaneval.pass_at_1(loaded, options.problems, steering, progress) if options.problems else None
    title = f"{applied.profile.name} ({applied.profile.brief}) at strength {strength_text(applied.strength)}"
    return Measurement(title, results, effects, passed, compared, wrong)


def _every(
    predictor: TokenPredictor,
    every: Sequence[Example],
    steering: Steering,
    vocabulary: Vocabulary,
    progress: Progress,
) -> tuple[tuple[Accuracy, Accuracy], list[WrongAnswer]]:
    """Return the accuracy on every prompt without and with the profile, and the wrong answers with it."""
    progress.stage("measuring every prompt", 2 * len(every))
    plain = predictor.predict(every, progress=progress)
    steered = predictor.predict(every, steering, progress)
    return (Accuracy.of(every, plain), Accuracy.of(every, steered)), wrong_answers(every, steered, vocabulary)
