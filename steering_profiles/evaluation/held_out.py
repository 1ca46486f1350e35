"""Side effects of a profile on the held-out texts and on minimal pairs, which are unrelated to its task."""

from steering_profiles.evaluation import humaneval
from steering_profiles.evaluation.corpora import held_out_texts
from steering_profiles.evaluation.last_words import find_last_words, last_words_effect
from steering_profiles.evaluation.minimal_pairs import minimal_pairs, pair_windows, pairs_effects
from steering_profiles.evaluation.prediction import TextPredictor
from steering_profiles.evaluation.replay import FinalLayerReplay
from steering_profiles.evaluation.side_effects import SideEffects
from steering_profiles.evaluation.token_changes import text_effect
from steering_profiles.evaluation.windows import Window, continuation_window, text_windows
from steering_profiles.models import LoadedModel
from steering_profiles.progress import Progress
from steering_profiles.steering import Steering

PROSE = "prose"
"""Name of the text whose sentences' last words are predicted."""
SOLUTIONS = "HumanEval solutions"
"""Name of the reference solutions of HumanEval among the texts."""


def measure_side_effects(
    loaded: LoadedModel,
    steering: Steering,
    progress: Progress | None = None,
    replay: FinalLayerReplay | None = None,
) -> SideEffects:
    """Measure the effects of ``steering`` on the held-out texts, on the last words of prose and on minimal pairs.

    The texts are the prose and code that ship with the package and, if HumanEval is installed
    (:func:`.humaneval.find_problems`), its reference solutions given their prompts. With ``replay``, steering of the
    final layer alone reruns that layer only.

    Raises:
        EvaluationError: HumanEval is installed and cannot be read.
    """
    windows = held_out_windows(loaded)
    words = find_last_words(loaded, held_out_texts()[PROSE], windows[PROSE])
    pairs = {name: pair_windows(loaded, some) for name, some in minimal_pairs().items()}
    with TextPredictor(loaded, replay) as predictor:
        of_texts = predictor.compare(windows, steering, progress, divergence=True)
        of_pairs = predictor.compare(pairs, steering, progress, stage="comparing sentences")
    return SideEffects(
        texts=tuple(text_effect(name, changes) for name, changes in of_texts.items()),
        last_words=last_words_effect(words or (), of_texts[PROSE]),
        minimal_pairs=pairs_effects(of_pairs),
    )


def held_out_windows(loaded: LoadedModel) -> dict[str, tuple[Window, ...]]:
    """Return the windows of tokens that :func:`measure_side_effects` predicts, by name of the text."""
    windows = {name: text_windows(loaded, text) for name, text in held_out_texts().items()}
    if humaneval.find_problems() is not None:
        windows[SOLUTIONS] = tuple(
            continuation_window(loaded, problem.prompt, problem.canonical_solution)
            for problem in humaneval.load_problems()
        )
    return windows
