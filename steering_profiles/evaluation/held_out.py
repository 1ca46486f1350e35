"""General ability: what a profile does to text that has nothing to do with its task."""

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


def measure_side_effects(
    loaded: LoadedModel,
    steering: Steering,
    progress: Progress | None = None,
    replay: FinalLayerReplay | None = None,
) -> SideEffects:
    """Measure NLL and next-token agreement, without and with ``steering``, on everything held out.

    That is the prose and code that ship with the package and, where they are installed
    (:func:`.humaneval.find_problems`), the reference solutions of HumanEval given their prompts. With ``replay`` what
    changes the final layer only costs no more than that layer.

    Raises:
        EvaluationError: the problems of HumanEval are installed and cannot be read.
    """
    with TextPredictor(loaded, replay) as predictor:
        return predictor.measure(held_out_windows(loaded), steering, progress)


def held_out_windows(loaded: LoadedModel) -> dict[str, tuple[Window, ...]]:
    """Return what :func:`measure_side_effects` predicts, as windows of tokens by name."""
    windows = {name: text_windows(loaded, text) for name, text in held_out_texts().items()}
    if humaneval.find_problems() is not None:
        windows[SOLUTIONS] = tuple(
            continuation_window(loaded, problem.prompt, problem.canonical_solution)
            for problem in humaneval.load_problems()
        )
    return windows
