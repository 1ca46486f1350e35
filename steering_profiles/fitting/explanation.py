"""Explain what one layer of a model does on a task, with the methods of Lv et al. (arXiv:2403.19521)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from steering_profiles.errors import FitError, TaskError
from steering_profiles.fit_settings import require_ridge
from steering_profiles.fitting.argument_heads import MOST_PAIRS, ArgumentHeads, find_argument_heads
from steering_profiles.fitting.decomposition import (
    Decomposition,
    LayerRecord,
    decompose,
    find_layer,
    r2,
    record_layer,
    require_prompts,
)
from steering_profiles.models import LoadedModel
from steering_profiles.progress import Progress
from steering_profiles.schema import ModelIdentity
from steering_profiles.tasks.task import Example, Task
from steering_profiles.tokenization import Vocabulary

MOST_TOKENS = 10
"""Number of tokens with the largest and with the smallest logits of the intercept that are kept."""


@dataclass(frozen=True)
class LensToken:
    """A token and its logit through the logit lens, without the final norm's scale, which depends on the prompt."""

    text: str
    logit: float


@dataclass(frozen=True)
class AnswerLogit:
    """Contributions of the parts of an MLP's output to the correct answer's logit, mean over prompts.

    Logits are those of the logit lens: relative to the mean over the vocabulary, without the final norm's scale. The
    parts are those of the decomposition, ``w_h a[l,h]``, ``w_r r`` and ``b``, and the residual that it leaves.
    """

    heads: tuple[float, ...]
    residual_stream: float
    intercept: float
    residual: float

    @property
    def parts(self) -> dict[str, float]:
        """All heads together, the residual stream, the intercept and the residual."""
        return {
            "heads": sum(self.heads),
            "residual stream": self.residual_stream,
            "intercept": self.intercept,
            "residual": self.residual,
        }

    @property
    def shares(self) -> dict[str, float]:
        """Each of :attr:`parts` as a signed share of the sum of their absolute values.

        Shares of the total would be meaningless where large parts cancel.
        """
        parts = self.parts
        moved = sum(map(abs, parts.values()))
        return {name: logit / moved if moved else 0.0 for name, logit in parts.items()}

    @property
    def total(self) -> float:
        """Contribution of the whole MLP output."""
        return sum(self.parts.values())


@dataclass(frozen=True, eq=False)
class Explanation:
    """Decomposition of a layer's MLP on a task, and the model's argument-passing heads."""

    task: str
    seed: int
    model: ModelIdentity
    layer: int
    """Index of the layer, from 0."""
    ridge: float
    prompts: Mapping[str, int]
    """Number of prompts used per split. The decomposition is fitted on ``train``."""
    decomposition: Decomposition
    r2: Mapping[str, float]
    """Share of the variance of the MLP's output that the decomposition explains, per split; in-sample on ``train``."""
    top: tuple[LensToken, ...]
    """Tokens with the largest logits of the intercept, largest first."""
    bottom: tuple[LensToken, ...]
    """Tokens with the smallest logits of the intercept, smallest first."""
    answer_logits: Mapping[str, AnswerLogit]
    """Contributions per split."""
    argument_heads: ArgumentHeads | None
    """Found on train prompts; None if they were not requested or could not be found."""
    left_out: tuple[str, ...] = ()
    """Missing parts of the explanation and unused parts of the task, each with the reason."""


@torch.no_grad()
def explain(
    loaded: LoadedModel,
    task: Task,
    layer: int = -1,
    *,
    ridge: float = 0.0,
    most_prompts: int | None = None,
    argument_heads: bool = True,
    progress: Progress | None = None,
) -> Explanation:
    """Decompose the MLP of ``layer`` on the train prompts of ``task``, and find the argument-passing heads.

    ``layer`` counts from 0, or from the end if negative; ``ridge`` is as :func:`.decomposition.decompose` takes it.
    At most the first ``most_prompts`` of each split are used. Argument-passing heads are searched in the whole model.

    Raises:
        ModelError: there is no such layer, or the model does not return its attention weights.
        FitError: the prompts do not determine the decomposition, or ``ridge`` is out of range.
        TaskError: the task has whole answers.
    """
    task.require_next_tokens("an explanation")
    layer = find_layer(loaded, layer)
    splits = {"train": task.train, "dev": task.dev, "test": task.test}
    used = {name: examples[:most_prompts] for name, examples in splits.items() if examples}
    require_ridge(ridge)  # before the recording, which takes a while
    require_prompts(len(used["train"]), loaded.anatomy.sizes.heads)
    records = {name: record_layer(loaded, examples, layer, progress) for name, examples in used.items()}
    fitted = decompose(records["train"], ridge=ridge)
    unembedding = loaded.anatomy.unembedding_weight()
    top, bottom = _ends(fitted.intercept, unembedding, Vocabulary(loaded.tokenizer))
    found, left_out = None, list(task.left_out)
    if argument_heads:
        most_pairs = MOST_PAIRS if most_prompts is None else min(MOST_PAIRS, most_prompts)
        try:
            found = find_argument_heads(loaded, used["train"], seed=task.seed, most_pairs=most_pairs, progress=progress)
        except TaskError as exc:
            left_out.append(f"argument-passing heads: {exc}")
    return Explanation(
        task=task.name,
        seed=task.seed,
        model=loaded.identity,
        layer=layer,
        ridge=ridge,
        prompts={name: len(examples) for name, examples in used.items()},
        decomposition=fitted,
        r2={name: _quality(name, fitted, record) for name, record in records.items()},
        top=top,
        bottom=bottom,
        answer_logits={
            name: answer_logit(fitted, records[name], _answer_columns(examples, unembedding))
            for name, examples in used.items()
        },
        argument_heads=found,
        left_out=tuple(left_out),
    )


@torch.no_grad()
def answer_logit(fitted: Decomposition, record: LayerRecord, columns: Tensor) -> AnswerLogit:
    """Return the contribution of each part to the answer's logit, mean over the prompts of ``record``.

    ``columns`` is ``[prompts, hidden_size]``: the column of the centred unembedding for each prompt's answer.
    """
    heads = fitted.heads * torch.einsum("nhd,nd->h", record.heads, columns) / len(columns)
    residual = record.mlp - fitted.predict(record)

    def mean_logit(part: Tensor) -> float:
        return float((part * columns).sum(dim=-1).mean())

    return AnswerLogit(
        heads=tuple(heads.tolist()),
        residual_stream=fitted.residual_stream * mean_logit(record.residual_stream),
        intercept=mean_logit(fitted.intercept),
        residual=mean_logit(residual),
    )


def _answer_columns(examples: Sequence[Example], unembedding: Tensor) -> Tensor:
    answers = torch.tensor([example.answer for example in examples], device=unembedding.device)
    return unembedding[:, answers].T.double().cpu()


def _quality(split: str, fitted: Decomposition, record: LayerRecord) -> float:
    try:
        return r2(fitted, record)
    except FitError as exc:
        raise FitError(f"{split}: {exc}") from exc


def _ends(
    intercept: Tensor, unembedding: Tensor, vocabulary: Vocabulary
) -> tuple[tuple[LensToken, ...], tuple[LensToken, ...]]:
    """Return the tokens with the largest and the smallest logits of ``intercept``, ``[hidden_size]``."""
    logits = intercept.to(unembedding) @ unembedding
    most = min(MOST_TOKENS, len(logits))

    def tokens(largest: bool) -> tuple[LensToken, ...]:
        values, indices = logits.topk(most, largest=largest)
        texts = [vocabulary.text_of(token) for token in indices.tolist()]
        return tuple(LensToken(text, value) for text, value in zip(texts, values.tolist(), strict=True))

    return tokens(largest=True), tokens(largest=False)
