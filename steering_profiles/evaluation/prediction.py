"""How well a model predicts given text, with and without steering: teacher-forced NLL and next-token agreement."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from steering_profiles.evaluation.replay import FinalLayerReplay
from steering_profiles.evaluation.side_effects import SideEffects, TextEffect
from steering_profiles.evaluation.windows import Window
from steering_profiles.models import LoadedModel
from steering_profiles.progress import Progress, Silent
from steering_profiles.steering import UNSTEERED, Steering, SteeringHandle, attach, steered_logits

MOST_LOGITS = 100_000_000
"""Logits computed in one pass: 200 MB in bfloat16, about 2,000 tokens of a vocabulary of 49,152."""
_MOST_IN_FLOAT32 = 12_500_000
"""Logits taken to float32 at a time: 50 MB."""


@dataclass(frozen=True)
class _Score:
    """How one window was predicted."""

    nll: float
    """Summed over its predicted tokens, in nats."""
    likeliest: Tensor
    """The likeliest token in the place of each predicted one, ``[predicted]``."""


@dataclass(frozen=True, eq=False)
class TokenScores:
    """How well each token of some text is predicted, in float32 at least."""

    nll: Tensor
    """``[tokens]``, in nats."""
    confidence: Tensor
    """``[tokens]``: the probability of the likeliest token there."""


class TextPredictor:
    """Measures how steering changes the prediction of texts. A context manager: on leaving it the model is plain again.

    The plain model's figures are kept, so that measuring many steerings on the same texts costs one pass for each.
    Steered and plain passes are cut into the same batches: what does not change the computation changes no bit of the
    result, and shows as a change of exactly 0. With ``replay`` a pass over texts that it has seen costs no more than
    the final layer, where no more is steered.
    """

    def __init__(self, loaded: LoadedModel, replay: FinalLayerReplay | None = None) -> None:
        self._loaded = loaded
        self._replay = replay
        self._handle: SteeringHandle = attach(loaded)
        self._plain: dict[tuple[Window, ...], list[_Score]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.remove()

    def measure(
        self, texts: Mapping[str, Sequence[Window]], steering: Steering, progress: Progress | None = None
    ) -> SideEffects:
        """Return what ``steering`` does to each of ``texts`` (name -> windows, of :mod:`.windows`)."""
        progress = progress or Silent()
        windows = {name: tuple(some) for name, some in texts.items()}
        passes = sum(len(some) * (1 if some in self._plain else 2) for some in windows.values())
        progress.stage("predicting texts", passes)
        return SideEffects(tuple(self._effect(name, some, steering, progress) for name, some in windows.items()))

    def _effect(self, name: str, windows: tuple[Window, ...], steering: Steering, progress: Progress) -> TextEffect:
        if windows not in self._plain:
            self._plain[windows] = self._score(windows, UNSTEERED, progress)
        before, after = self._plain[windows], self._score(windows, steering, progress)
        tokens = sum(len(window.predicted) for window in windows)
        if not tokens:
            raise ValueError(f"{name}: there is no token to predict")
        agreeing = sum(int((one.likeliest == other.likeliest).sum()) for one, other in zip(before, after, strict=True))
        return TextEffect(
            name=name,
            tokens=tokens,
            nll_before=sum(score.nll for score in before) / tokens,
            nll_after=sum(score.nll for score in after) / tokens,
            agreement=agreeing / tokens,
        )

    @torch.inference_mode()
    def token_scores(self, windows: Sequence[Window], steering: Steering) -> TokenScores:
        """Return how each token that ``windows`` predict is predicted, window after window."""
        parts = {index: _token_scores(logits, windows[index]) for index, logits in self._predicted(windows, steering)}
        nll, confidence = zip(*(parts[index] for index in range(len(windows))), strict=True)
        return TokenScores(torch.cat(nll), torch.cat(confidence))

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
        """Give the first position that predicts anything, and the logits from there on: ``[batch, positions, vocab]``.

        Rows are padded on the right, which no position before sees under causal attention.
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

        return first, steered_logits(self._handle, [steering] * len(batch), forward)


def _score(logits: Tensor, window: Window) -> _Score:
    """Score the ``[predicted, vocab]`` logits of one window, in float32 at least."""
    answers = torch.tensor(window.predicted, device=logits.device)
    rows = max(1, _MOST_IN_FLOAT32 // logits.shape[-1])
    precise = torch.promote_types(logits.dtype, torch.float32)
    nll, likeliest = 0.0, []
    for piece, expected in zip(logits.split(rows), answers.split(rows), strict=True):
        piece = piece.to(precise)
        nll += float(functional.cross_entropy(piece, expected, reduction="sum"))
        likeliest.append(piece.argmax(dim=-1))  # three times as fast as in half precision
    return _Score(nll, torch.cat(likeliest).cpu())


def _token_scores(logits: Tensor, window: Window) -> tuple[Tensor, Tensor]:
    """Return the NLL of each predicted token, and the probability of the likeliest in its place."""
    answers = torch.tensor(window.predicted, device=logits.device)
    rows = max(1, _MOST_IN_FLOAT32 // logits.shape[-1])
    nll, confidence = [], []
    for piece, expected in zip(logits.split(rows), answers.split(rows), strict=True):
        likely = piece.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(dim=-1)
        nll.append(functional.nll_loss(likely, expected, reduction="none"))
        confidence.append(likely.amax(dim=-1).exp())
    return torch.cat(nll).cpu(), torch.cat(confidence).cpu()


def _batches(windows: Sequence[Window], most_tokens: int) -> Iterator[list[int]]:
    """Yield indices of windows of similar length, longest first, as many as fit ``most_tokens`` when padded."""
    order = sorted(range(len(windows)), key=lambda index: -len(windows[index].tokens))
    while order:
        fitting = max(1, most_tokens // len(windows[order[0]].tokens))
        yield order[:fitting]
        order = order[fitting:]
