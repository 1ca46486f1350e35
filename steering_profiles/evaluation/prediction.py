"""Prediction of text with and without steering: teacher-forced NLL, accuracy, agreement and divergence."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from steering_profiles.evaluation.replay import FinalLayerReplay
from steering_profiles.evaluation.side_effects import SideEffects
from steering_profiles.evaluation.token_changes import Floats, TokenChanges, text_effect
from steering_profiles.evaluation.windows import Window
from steering_profiles.models import LoadedModel
from steering_profiles.progress import Progress, Silent
from steering_profiles.steering import UNSTEERED, Steering, SteeringHandle, TextReader, attach, steered_logits

MOST_LOGITS = 100_000_000
"""Maximum number of logits of one pass: 200 MB in bfloat16, about 2,000 tokens with a vocabulary of 49,152."""
_MOST_IN_FLOAT32 = 12_500_000
"""Maximum number of logits converted to float32 at a time: 50 MB."""


@dataclass(frozen=True)
class _Score:
    """Scores of the predicted tokens of one window."""

    nll: Tensor
    """Negative log-likelihood of each predicted token, ``[predicted]``, float64, in nats."""
    likeliest: Tensor
    """The likeliest token at the position of each predicted one, ``[predicted]``."""

    def correct(self, window: Window) -> Floats:
        """Return 1 for each predicted token of the window that is the likeliest, else 0, ``[predicted]``."""
        right: Floats = (self.likeliest == torch.tensor(window.predicted)).double().numpy()
        return right


@dataclass(frozen=True, eq=False)
class TokenScores:
    """Scores of each token of a text, in at least float32."""

    nll: Tensor
    """Negative log-likelihood of each token, ``[tokens]``, in nats."""
    confidence: Tensor
    """Probability of the likeliest token at each position, ``[tokens]``."""
    is_first: Tensor
    """Whether the token is the first that is predicted in its window, as of a completion, ``[tokens]``."""


class TextPredictor:
    """Predictor of texts that measures the effect of steering on them.

    It is a context manager that removes its hooks from the model on exit. The unsteered model's scores are cached, so
    that each further steering of the same texts takes one pass. Steered and unsteered passes use the same batches:
    steering that does not change the computation gives a change of exactly 0. With ``replay``, repeated passes over the
    same texts run the final layer only, if nothing below it is steered.
    """

    def __init__(self, loaded: LoadedModel, replay: FinalLayerReplay | None = None) -> None:
        self._loaded = loaded
        self._replay = replay
        self._handle: SteeringHandle = attach(loaded)
        self._reader = TextReader(loaded.tokenizer)
        self._unsteered: dict[tuple[Window, ...], list[_Score]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.remove()

    def measure(
        self,
        texts: Mapping[str, Sequence[Window]],
        steering: Steering,
        progress: Progress | None = None,
        *,
        divergence: bool = False,
    ) -> SideEffects:
        """Return the effect of ``steering`` on each of ``texts``, a mapping of names to windows (:mod:`.windows`).

        Raises:
            ValueError: a text has no token to predict.
        """
        changes = self.compare(texts, steering, progress, divergence=divergence)
        return SideEffects(tuple(text_effect(name, of_text) for name, of_text in changes.items()))

    @torch.inference_mode()
    def compare(
        self,
        texts: Mapping[str, Sequence[Window]],
        steering: Steering,
        progress: Progress | None = None,
        *,
        divergence: bool = False,
        stage: str = "predicting texts",
    ) -> dict[str, list[TokenChanges]]:
        """Return what ``steering`` changes at the tokens of each window of ``texts``, by the texts' names.

        The ``divergence`` needs the predictions of both at once, so the unsteered ones are made again for it.
        """
        progress = progress or Silent()
        windows = {name: tuple(some) for name, some in texts.items()}
        progress.stage(
            stage, sum(len(some) * (1 + (divergence or some not in self._unsteered)) for some in windows.values())
        )
        compare = self._compare_with_divergence if divergence else self._compare
        return {name: compare(some, steering, progress) for name, some in windows.items()}

    def _compare(self, windows: tuple[Window, ...], steering: Steering, progress: Progress) -> list[TokenChanges]:
        if windows not in self._unsteered:
            self._unsteered[windows] = self._score(windows, UNSTEERED, progress)
        both = zip(self._unsteered[windows], self._score(windows, steering, progress), windows, strict=True)
        return [_changes(before, after, window) for before, after, window in both]

    def _compare_with_divergence(
        self, windows: tuple[Window, ...], steering: Steering, progress: Progress
    ) -> list[TokenChanges]:
        plain: dict[int, _Score] = {}
        changes: dict[int, TokenChanges] = {}
        both = zip(self._predicted(windows, UNSTEERED), self._predicted(windows, steering), strict=True)
        for (index, without), (_, with_) in both:
            window = windows[index]
            plain[index] = _score(without, window)
            changes[index] = replace(
                _changes(plain[index], _score(with_, window), window), divergence=_divergence(without, with_).numpy()
            )
            progress.advance(2)
        self._unsteered[windows] = [plain[index] for index in range(len(windows))]
        return [changes[index] for index in range(len(windows))]

    @torch.inference_mode()
    def token_scores(self, windows: Sequence[Window], steering: Steering) -> TokenScores:
        """Return the scores of the predicted tokens of ``windows``, concatenated in order."""
        parts = {index: _token_scores(logits, windows[index]) for index, logits in self._predicted(windows, steering)}
        nll, confidence = zip(*(parts[index] for index in range(len(windows))), strict=True)
        counts = [len(window.predicted) for window in windows]
        is_first = torch.cat([torch.arange(count) == 0 for count in counts])
        return TokenScores(torch.cat(nll), torch.cat(confidence), is_first)

    @torch.inference_mode()
    def _score(self, windows: Sequence[Window], steering: Steering, progress: Progress) -> list[_Score]:
        scores: dict[int, _Score] = {}
        for index, logits in self._predicted(windows, steering):
            scores[index] = _score(logits, windows[index])
            progress.advance()
        return [scores[index] for index in range(len(windows))]

    def _predicted(self, windows: Sequence[Window], steering: Steering) -> Iterator[tuple[int, Tensor]]:
        """Yield each window's index and its ``[predicted, vocab]`` logits, in any order."""
        for indices in _batches(windows, MOST_LOGITS // self._loaded.anatomy.sizes.vocab_size):
            batch = [windows[index] for index in indices]
            first, logits = self._logits(batch, steering)
            for index, window, of_window in zip(indices, batch, logits, strict=True):
                start = window.given - 1 - first
                yield index, of_window[start : start + len(window.predicted)]

    def _logits(self, batch: Sequence[Window], steering: Steering) -> tuple[int, Tensor]:
        """Return the first position that predicts a token, and the logits from it on: ``[batch, positions, vocab]``.

        Windows are padded on the right. No earlier position attends to the padding, since attention is causal.
        """
        longest = max(len(window.tokens) for window in batch)
        padded = [(*window.tokens, *[0] * (longest - len(window.tokens))) for window in batch]
        first = min(window.given for window in batch) - 1
        tokens = torch.tensor(padded, device=self._loaded.input_device)

        def forward() -> Tensor:
            with nullcontext() if self._replay is None else self._replay.over(tokens, steering):
                logits: Tensor = self._loaded.model(
                    input_ids=tokens, use_cache=False, logits_to_keep=longest - first
                ).logits
            return logits

        held = self._reader.held(steering, [(window.tokens, window.given) for window in batch], longest)
        return first, steered_logits(self._handle, [steering] * len(batch), forward, held)


def _changes(before: _Score, after: _Score, window: Window) -> TokenChanges:
    return TokenChanges(
        nll=(before.nll.numpy(), after.nll.numpy()),
        correct=(before.correct(window), after.correct(window)),
        agrees=(before.likeliest == after.likeliest).double().numpy(),
    )


def _score(logits: Tensor, window: Window) -> _Score:
    """Score the ``[predicted, vocab]`` logits of one window in at least float32."""
    answers = torch.tensor(window.predicted, device=logits.device)
    rows = max(1, _MOST_IN_FLOAT32 // logits.shape[-1])
    precise = torch.promote_types(logits.dtype, torch.float32)
    nll, likeliest = [], []
    for chunk, expected in zip(logits.split(rows), answers.split(rows), strict=True):
        chunk = chunk.to(precise)
        nll.append(functional.cross_entropy(chunk, expected, reduction="none").double())
        likeliest.append(chunk.argmax(dim=-1))  # three times as fast as in half precision
    return _Score(torch.cat(nll).cpu(), torch.cat(likeliest).cpu())


def _divergence(without: Tensor, with_: Tensor) -> Tensor:
    """Return ``KL(without || with)`` of each row of ``[predicted, vocab]`` logits: ``[predicted]``, in nats."""
    rows = max(1, _MOST_IN_FLOAT32 // without.shape[-1])
    precise = torch.promote_types(without.dtype, torch.float32)
    parts = []
    for chunk, other in zip(without.split(rows), with_.split(rows), strict=True):
        plain, steered = chunk.to(precise).log_softmax(dim=-1), other.to(precise).log_softmax(dim=-1)
        parts.append(functional.kl_div(steered, plain, reduction="none", log_target=True).double().sum(dim=-1))
    return torch.cat(parts).cpu()


def _token_scores(logits: Tensor, window: Window) -> tuple[Tensor, Tensor]:
    """Return the NLL of each predicted token, and the probability of the likeliest token at its position."""
    answers = torch.tensor(window.predicted, device=logits.device)
    rows = max(1, _MOST_IN_FLOAT32 // logits.shape[-1])
    nll, confidence = [], []
    for chunk, expected in zip(logits.split(rows), answers.split(rows), strict=True):
        likely = chunk.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(dim=-1)
        nll.append(functional.nll_loss(likely, expected, reduction="none"))
        confidence.append(likely.amax(dim=-1).exp())
    return torch.cat(nll).cpu(), torch.cat(confidence).cpu()


def _batches(windows: Sequence[Window], most_tokens: int) -> Iterator[list[int]]:
    """Yield batches of indices of windows, longest first, each of at most ``most_tokens`` tokens when padded."""
    order = sorted(range(len(windows)), key=lambda index: -len(windows[index].tokens))
    while order:
        fitting = max(1, most_tokens // len(windows[order[0]].tokens))
        yield order[:fitting]
        order = order[fitting:]
