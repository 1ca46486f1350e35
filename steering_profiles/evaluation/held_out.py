"""Side effects of a profile on the held-out texts, which are unrelated to its task."""

from steering_profiles.evaluation import humaneval
from steering_profiles.evaluation.corpora import held_out_texts
from steering_profiles.evaluation.prediction import TextPredictor
from steering_profiles.evaluation.replay import FinalLayerReplay
from steering_profiles.evaluation.side_effects import SideEffects
from steering_profiles.evaluation.windows import Window, continuation_window, text_windows
from steering_profiles.models import LoadedModel
from steering_profiles.progress import Progress
from steering_profiles.steering import Steering

SOLUTIONS = "HumanEval solutions"
"""Name of the reference solutions of HumanEval among the texts."""


def measure_side_effects(
    loaded: LoadedModel,
    steering: Steering,
    progress: Progress | None = None,
    replay: FinalLayerReplay | None = None,
) -> SideEffects:
    """Measure the effects of ``steering`` on the held-out texts, those on NLL and on next-token accuracy among them.

    The texts are the prose and code that ship with the package and, if HumanEval is installed
    (:func:`.humaneval.find_problems`), its reference solutions given their prompts. With ``replay``, steering of the
    final layer alone reruns that layer only.

    Raises:
        EvaluationError: HumanEval is installed and cannot be read.
    """
    with TextPredictor(loaded, replay) as predictor:
        return predictor.measure(held_out_windows(loaded), steering, progress, divergence=True)


def held_out_windows(loaded: LoadedModel) -> dict[str, tuple[Window, ...]]:
    """Return the windows of tokens that :func:`measure_side_effects` predicts, by name of the text."""
    windows = {name: text_windows(loaded, text) for name, text in held_out_texts().items()}
    if humaneval.find_problems() is not None:
        windows[SOLUTIONS] = tuple(
            continuation_window(loaded, problem.prompt, problem.canonical_solution)
            for problem in humaneval.load_problems()
        )
    return windows
