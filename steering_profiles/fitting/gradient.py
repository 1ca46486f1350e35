"""Gradients of the answers' loss and of other text's NLL with respect to all component scales."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy
from torch.utils.hooks import RemovableHandle

from steering_profiles.conditions import Condition, ConditionTrace
from steering_profiles.evaluation.windows import Window
from steering_profiles.fit_settings import MARGIN, Kind
from steering_profiles.fitting.components import Scales, ScaleSet
from steering_profiles.models import LoadedModel
from steering_profiles.models.quantised import differentiable
from steering_profiles.tasks.task import Example
from steering_profiles.tokenization import Continuations, Vocabulary

_Losses = tuple[Tensor, Tensor]
"""A loss, and the weighted loss that is differentiated."""
_TOKENS_AT_ONCE = 1024
"""Prompt tokens per backward pass, padding included; limits the memory for activations."""


@dataclass(frozen=True)
class LossGradient:
    """A loss and its gradient with respect to the scales."""

    loss: float
    by_kind: dict[Kind, Tensor]
    """Derivatives by scale: ``[layers, heads]`` and ``[layers, neurons]``."""
    leads: tuple[float, ...] = ()
    """Of answers: the logit of each minus the largest other logit; above 0 the answer is right.

    That of a whole answer is the smallest of its tokens and of its end, where the logits of tokens that let it end
    compete with those of tokens that go on with it.
    """


class DifferentiableScales:
    """Context manager that applies component scales to a model such that a loss can be differentiated by them.

    With a ``condition`` they apply only at the positions where it holds. The scales of the sets ``beside`` are in place
    as well, where theirs hold.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        kinds: Sequence[Kind],
        condition: Condition | None = None,
        beside: Sequence[ScaleSet] = (),
        margin: float = MARGIN,
    ) -> None:
        sizes = loaded.anatomy.sizes
        self._loaded = loaded
        self._margin = margin
        self._positions = None if condition is None else _Positions(loaded, condition)
        self._held: Tensor | None = None
        self._beside = [_FixedScales(loaded, one) for one in beside]
        self._precise = torch.promote_types(loaded.dtype, torch.float32)
        widths: dict[Kind, int] = {"head": sizes.heads, "neuron": sizes.neurons}
        self._shapes = {kind: (sizes.layers, widths[kind]) for kind in kinds}
        self._continuations = Continuations(loaded.tokenizer)
        self._continuing: dict[str, Tensor] = {}
        self._last: Tensor | None = None
        self._scales: dict[Kind, list[Tensor]] = {}
        self._handles: list[RemovableHandle] = []
        self._trained: list[nn.Parameter] = []
        self._kernels = ExitStack()

    def __enter__(self) -> Self:
        self._kernels.enter_context(differentiable(self._loaded.model))
        self._trained = [parameter for parameter in self._loaded.model.parameters() if parameter.requires_grad]
        for parameter in self._trained:
            parameter.requires_grad_(False)
        for index, layer in enumerate(self._loaded.anatomy.layers):
            for kind in self._shapes:
                module = layer.head_output if kind == "head" else self._loaded.anatomy.neuron_output(index)
                self._handles.append(module.register_forward_pre_hook(self._hook(kind, index)))
        self._handles.append(self._loaded.anatomy.unembedding.register_forward_pre_hook(self._keep_last))
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> None:
        while self._handles:
            self._handles.pop().remove()
        for parameter in self._trained:
            if not parameter.is_meta:  # a placeholder for a weight that accelerate loads on use
                parameter.requires_grad_(True)
        self._kernels.close()

    def of_answers(
        self, examples: Sequence[Example], scales: Scales, weights: Sequence[float] | None = None
    ) -> LossGradient:
        """Return the loss of the answers to ``examples`` at ``scales``, and its gradient.

        The loss is the mean of ``max(0, margin - lead)``, where ``lead`` is the answer's logit minus the largest other
        logit. The gradient, and not the loss, has the ``weights`` of the examples; they are 1 if they are not given.
        """
        weighted = list(zip(examples, weights or [1.0] * len(examples), strict=True))
        order = sorted(range(len(examples)), key=lambda index: len(examples[index].scored_tokens))
        leads: list[float] = []
        batches = _batches([weighted[index] for index in order])
        losses = [partial(self._answers_loss, batch, leads) for batch in batches]
        found = self._loss_gradient(losses, len(examples), scales)
        return replace(found, leads=tuple(lead for _, lead in sorted(zip(order, leads, strict=True))))

    def of_texts(self, windows: Sequence[Window], scales: Scales) -> LossGradient:
        """Return the mean NLL per token of ``windows`` at ``scales``, in nats, and its gradient."""
        tokens = sum(len(window.predicted) for window in windows)
        return self._loss_gradient([partial(self._text_loss, window) for window in windows], tokens, scales)

    def _loss_gradient(self, losses: Sequence[Callable[[], _Losses]], count: int, scales: Scales) -> LossGradient:
        total = 0.0
        sums = {kind: torch.zeros(shape, dtype=self._precise) for kind, shape in self._shapes.items()}
        for loss_of in losses:
            self._set(scales)
            loss, weighted = loss_of()
            total += loss.item()
            grads = iter(torch.autograd.grad(weighted, [s for of_layers in self._scales.values() for s in of_layers]))
            for kind, of_layers in self._scales.items():
                sums[kind] += torch.stack([next(grads).cpu() for _ in of_layers])
        self._scales = {}  # disables the hooks
        return LossGradient(total / count, {kind: grad / count for kind, grad in sums.items()})

    def _set(self, scales: Scales) -> None:
        device = self._loaded.layer_devices
        self._scales = {
            kind: [torch.ones(width, dtype=self._precise, device=device[layer]) for layer in range(layers)]
            for kind, (layers, width) in self._shapes.items()
        }
        for component, scale in scales.items():
            self._scales[component.kind][component.layer][component.index] = scale
        for of_layers in self._scales.values():
            for of_layer in of_layers:
                of_layer.requires_grad_(True)

    def _answers_loss(self, weighted: Sequence[tuple[Example, float]], leads: list[float]) -> _Losses:
        """Return the summed loss of a batch; append the leads of its answers to ``leads``."""
        batch = [example for example, _ in weighted]
        # Padding on the right is invisible to the positions before it under causal attention.
        texts = [example.scored_tokens for example in batch]
        longest = max(map(len, texts))
        positions = max(example.scored_positions for example in batch)
        padded = [(*text, *[0] * (longest - len(text))) for text in texts]
        # Where there are fewer positions than in the others, the first is repeated, which changes no minimum.
        first = torch.tensor([len(example.prompt) - 1 for example in batch]).unsqueeze(-1)
        last = torch.tensor([len(text) - 1 for text in texts]).unsqueeze(-1)
        self._last = torch.maximum(last - torch.arange(positions).flip(0), first)
        self._read([(text, len(example.prompt)) for text, example in zip(texts, batch, strict=True)], longest)
        logits = self._logits(torch.tensor(padded)).to(self._precise)
        self._last = None
        found = self._leads(batch, logits).amin(dim=-1)
        leads.extend(found.tolist())
        losses = (self._margin - found).clamp(min=0)
        weights = torch.tensor([weight for _, weight in weighted], dtype=losses.dtype, device=losses.device)
        return losses.sum(), (losses * weights).sum()

    def _leads(self, batch: Sequence[Example], logits: Tensor) -> Tensor:
        """Return the lead at each scored position, ``[batch, positions]``, of ``[batch, positions, vocab]`` logits."""
        positions = logits.shape[1]
        answers, ends = torch.empty(logits.shape[:2], dtype=torch.long), torch.zeros(logits.shape[:2], dtype=torch.bool)
        for row, example in enumerate(batch):
            expected = [*example.whole_answer, *[0] * bool(example.ends_with)]
            answers[row] = torch.tensor([*[example.answer] * (positions - len(expected)), *expected])
            ends[row, -1] = bool(example.ends_with)
        answers = answers.to(logits.device).unsqueeze(-1)
        right = logits.gather(-1, answers).squeeze(-1)
        others = logits.scatter(-1, answers, -torch.inf).amax(dim=-1)
        found = right - others
        if not ends.any():
            return found
        going_on = torch.stack([self._going_on(example.ends_with, logits) for example in batch])
        at_end = logits[:, -1]
        ended = at_end.masked_fill(going_on, -torch.inf).amax(dim=-1)
        lead = ended - at_end.masked_fill(~going_on, -torch.inf).amax(dim=-1)
        return torch.where(ends.to(found.device), lead.unsqueeze(-1), found)

    def _going_on(self, last: str, logits: Tensor) -> Tensor:
        """Return which tokens go on with an answer whose last character is ``last``, ``[vocab]``; none without one."""
        if last not in self._continuing:
            size = logits.shape[-1]
            of_all = self._continuations.of_all(last, size) if last else [False] * size
            self._continuing[last] = torch.tensor(of_all, device=logits.device)
        return self._continuing[last]

    def _text_loss(self, window: Window) -> _Losses:
        self._read([(window.tokens, window.given)], len(window.tokens))
        logits = self._logits(torch.tensor([window.tokens]))[0, window.given - 1 : -1].to(self._precise)
        loss = cross_entropy(logits, torch.tensor(window.predicted, device=logits.device), reduction="sum")
        return loss, loss

    def _read(self, texts: Sequence[tuple[Sequence[int], int]], width: int) -> None:
        if self._positions is not None:
            self._held = torch.tensor([self._positions.of(*text, width) for text in texts]).unsqueeze(-1)
        for fixed in self._beside:
            fixed.read(texts, width)

    def _logits(self, tokens: Tensor) -> Tensor:
        # The backward pass of torch's fused attention dominates the time for such short prompts.
        with sdpa_kernel(SDPBackend.MATH):
            output = self._loaded.model(input_ids=tokens.to(self._loaded.input_device), use_cache=False)
        logits: Tensor = output.logits
        return logits

    def _keep_last(self, module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Keep only the scored positions for the unembedding: ``[batch, positions, hidden_size]``."""
        if self._last is None:
            # With a non-contiguous input and frozen weights torch would copy the weights once per row.
            return (args[0].contiguous(), *args[1:])
        last = self._last.to(args[0].device)
        return (args[0][torch.arange(len(last), device=last.device).unsqueeze(-1), last], *args[1:])

    def _hook(self, kind: Kind, layer: int) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...] | None]:
        def hook(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
            if not self._scales:
                return None
            scale = self._scales[kind][layer]
            if kind == "head":
                scale = scale.repeat_interleave(self._loaded.anatomy.sizes.head_dim)
            scale = scale.to(args[0].dtype)
            if self._held is not None:
                held = self._held.to(scale.device).reshape(*args[0].shape[:-1], 1)
                scale = torch.where(held, scale, torch.ones_like(scale))
            scaled = args[0] * scale
            for fixed in self._beside:
                scaled = fixed.apply(kind, layer, scaled)
            return (scaled, *args[1:])

        return hook


class _FixedScales:
    """A set of scales that is in place while others are moved."""

    def __init__(self, loaded: LoadedModel, given: ScaleSet) -> None:
        sizes = loaded.anatomy.sizes
        self._positions = None if given.condition is None else _Positions(loaded, given.condition)
        self._held: Tensor | None = None
        self._factors: dict[tuple[Kind, int], Tensor] = {}
        for component, scale in given.scales.items():
            each, width = (sizes.head_dim, sizes.heads) if component.kind == "head" else (1, sizes.neurons)
            factors = self._factors.setdefault(
                (component.kind, component.layer), torch.ones(width * each, dtype=torch.float64)
            )
            factors[component.index * each : (component.index + 1) * each] = scale

    def read(self, texts: Sequence[tuple[Sequence[int], int]], width: int) -> None:
        """Read the texts of the next pass: tokens, and the length of the prompt."""
        if self._positions is not None:
            self._held = torch.tensor([self._positions.of(*text, width) for text in texts]).unsqueeze(-1)

    def apply(self, kind: Kind, layer: int, activations: Tensor) -> Tensor:
        """Return ``activations``, ``[..., features]``, scaled where the condition holds."""
        factors = self._factors.get((kind, layer))
        if factors is None:
            return activations
        factors = factors.to(activations)
        if self._held is not None:
            held = self._held.to(activations.device).reshape(*activations.shape[:-1], 1)
            factors = torch.where(held, factors, torch.ones_like(factors))
        return activations * factors


class _Positions:
    """The positions of texts at which a condition holds."""

    def __init__(self, loaded: LoadedModel, condition: Condition) -> None:
        self._condition = condition
        self._bytes_of = Vocabulary(loaded.tokenizer).bytes_of
        self._known: dict[tuple[tuple[int, ...], int], list[bool]] = {}

    def of(self, tokens: Sequence[int], prompt_length: int, width: int) -> list[bool]:
        """Return whether the condition holds at each of ``width`` positions, of which those after the text are padding.

        A search asks for the same texts in every step.
        """
        text = (tuple(tokens), prompt_length)
        if text not in self._known:
            trace = ConditionTrace((self._condition,), self._bytes_of, prompt_length)
            self._known[text] = [bool(held) for held in trace.held(tokens, 0, len(tokens))]
        return self._known[text] + [False] * (width - len(tokens))


def _batches(ordered: Sequence[tuple[Example, float]]) -> Iterator[Sequence[tuple[Example, float]]]:
    """Cut examples, which are sorted by length, into batches of at most ``_TOKENS_AT_ONCE`` tokens."""
    batch: list[tuple[Example, float]] = []
    for example, weight in ordered:
        if batch and (len(batch) + 1) * len(example.scored_tokens) > _TOKENS_AT_ONCE:
            yield batch
            batch = []
        batch.append((example, weight))
    if batch:
        yield batch
