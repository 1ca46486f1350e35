"""The profile format, version 1.

A profile is a JSON file and, if it has tensors, a ``.safetensors`` file of the same name. This module has its types and
the checks that need no model. It does not import torch.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    field_validator,
    model_validator,
)

from steering_profiles.conditions import Condition
from steering_profiles.errors import StrengthError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BASELINE = "baseline"
"""Name of the unsteered arm; no profile may have it."""

MAX_STRENGTH = 10.0
"""Strengths are in ``-MAX_STRENGTH..MAX_STRENGTH``; 0 is no steering and 1 the profile as fitted."""

INTERCEPT_TENSOR = "final_layer.intercept"
"""Name of the intercept ``b``, ``[hidden_size]``, in the profile's safetensors file."""

_T = TypeVar("_T")


def _writable(value: _T) -> _T:
    """Refuse text with lone surrogates: JSON and Python accept them, but UTF-8 cannot encode them."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as exc:
        raise ValueError(f"contains a lone surrogate, {exc.object[exc.start]!r}, which is not valid text") from exc
    return value


ProfileName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Text = Annotated[str, AfterValidator(_writable)]
Facts = Annotated[Mapping[str, JsonValue], AfterValidator(_writable)]
# Strict, so that text and booleans are not accepted as numbers.
Integer = Annotated[int, Field(strict=True)]
Index = Annotated[int, Field(strict=True, ge=0)]
Count = Annotated[int, Field(strict=True, ge=1)]
Number = Annotated[float, Field(strict=True)]
Share = Annotated[float, Field(strict=True, ge=0, le=1)]


class _Frozen(BaseModel):
    # Files and HTTP answers have the keys of format version 1: the alias, where a field has one.
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
    )


class ModelIdentity(_Frozen):
    """Sizes and fingerprint that identify the model a profile was fitted on."""

    id: Text
    """Hub id or name of the model, for display; not compared."""
    architecture: Text
    """Name of the transformers class, for example ``LlamaForCausalLM``."""
    layers: Count
    heads: Count
    kv_heads: Count
    head_dim: Count
    neurons: Count
    hidden_size: Annotated[Count, Field(alias="width")]
    vocab_size: Count
    fingerprint: Text
    """SHA-256 over the parts of config and tokenizer that determine what a component computes."""


class HeadScale(_Frozen):
    """Factor of the output of one attention head, applied before the output projection."""

    layer: Index
    head: Index
    scale: Number

    @property
    def component(self) -> str:
        """Name of the head, such as ``L11H2``."""
        return f"L{self.layer}H{self.head}"


class NeuronScale(_Frozen):
    """Factor of the activation of one feed-forward neuron, applied before the down projection."""

    layer: Index
    neuron: Index
    scale: Number

    @property
    def component(self) -> str:
        """Name of the neuron, such as ``L3N120``."""
        return f"L{self.layer}N{self.neuron}"


class Gate(_Frozen):
    """Band of probabilities, including both ends, that limits the final-layer effects of a profile to some positions.

    The final layer's output affects only the logits at its own position. So at each position the logits are either
    those with the profile's final-layer effects or exactly those without them. The effects apply where the top
    next-token probability is in the band. This probability is computed without the gated effects and with all other
    effects: the softmax of the raw logits in float32, before any temperature or penalty.
    """

    low: Share
    high: Share

    @model_validator(mode="after")
    def _is_a_band(self) -> Self:
        if not self.low < self.high:
            raise ValueError(
                f"low is {strength_text(self.low)} and high is {strength_text(self.high)}; low must be below high"
            )
        return self

    def __str__(self) -> str:
        return f"{strength_text(self.low)}..{strength_text(self.high)}"


class FinalLayer(_Frozen):
    """Final-layer effects of Lv et al. (arXiv:2403.19521): self-only attention and the subtracted intercept."""

    self_only_attention: Annotated[Share, Field(alias="own_attention")] = 0.0
    """Share of each position's attention output that is replaced by its own value vector, 0..1."""
    intercept_scale: Number = 0.0
    """``lambda``, the factor of the MLP intercept ``b`` that is subtracted; may be negative."""
    # Omitted if None, so that profiles without a gate have the same content hash as before gates existed.
    gate: Annotated[Gate | None, Field(exclude_if=lambda gate: gate is None)] = None
    """Positions at which both effects apply; None: all positions."""

    @model_validator(mode="after")
    def _gate_holds_something_back(self) -> Self:
        if self.gate is not None and not (self.self_only_attention or self.intercept_scale):
            raise ValueError(
                "gate: a gate needs self-only attention or an intercept to apply to; this profile has neither"
            )
        return self

    @property
    def summary(self) -> str:
        """Short description, such as ``self-only attention 1 where the top probability is 0.05..0.6``."""
        parts = []
        if self.self_only_attention:
            parts.append(f"self-only attention {self.self_only_attention:g}")
        if self.intercept_scale:
            parts.append(f"intercept x {self.intercept_scale:g}")
        return (
            ", ".join(parts) if self.gate is None else f"{' and '.join(parts)} where the top probability is {self.gate}"
        )


class Provenance(_Frozen):
    """Origin of a profile: what is needed to fit it again, and the figures it was chosen by."""

    tool_version: Text
    command: Text
    task: Text
    seed: Integer
    split_sizes: Mapping[Text, Index] = {}
    grid: Facts = {}
    chosen: Facts = {}
    dev: Facts = {}
    test: Facts = {}
    side_effects: Facts = {}
    """Effects on other text, as written by :meth:`steering_profiles.evaluation.SideEffects.record`."""


class Profile(_Frozen):
    """A steering profile: the components to scale, the final-layer effects, and the model they were fitted on."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    format_version: Literal[1] = 1
    name: ProfileName
    description: Text
    method: Literal["rasteer", "final-layer", "manual"]
    model: ModelIdentity
    # There can be hundreds of thousands, of which an error names the first invalid one.
    heads: Annotated[tuple[HeadScale, ...], Field(fail_fast=True)] = ()
    neurons: Annotated[tuple[NeuronScale, ...], Field(fail_fast=True)] = ()
    final_layer: FinalLayer = FinalLayer()
    # Omitted if None, so that profiles without a condition have the same content hash as before conditions existed.
    when: Annotated[Condition | None, Field(exclude_if=lambda when: when is None)] = None
    """Positions at which the profile takes effect; None: all positions."""
    provenance: Provenance | None = None
    tensors: Annotated[Mapping[str, np.ndarray[Any, Any]], Field(exclude=True, repr=False)] = {}
    """Tensors of the safetensors file, float32; only ``INTERCEPT_TENSOR`` in format version 1."""

    @property
    def summary(self) -> str:
        """Short description of the changes, such as ``20 heads x 1.5``."""
        parts = [
            f"{len(scales)} {what} x {_range([scale.scale for scale in scales])}"
            for what, scales in (("heads", self.heads), ("neurons", self.neurons))
            if scales
        ]
        changes = ", ".join(filter(None, (*parts, self.final_layer.summary))) or "nothing"
        return changes if self.when is None else f"{changes}; where {self.when}"

    def apply(
        self,
        model: "PreTrainedModel",
        *,
        strength: float = 1.0,
        tokenizer: "PreTrainedTokenizerBase | None" = None,
        force: bool = False,
    ) -> AbstractContextManager[None]:
        """Return a context that steers a plain transformers model: ``with profile.apply(model): model.generate(...)``.

        See :func:`steering_profiles.steering.applying.applying` for the checks and the errors.
        """
        from steering_profiles.steering.applying import applying  # the only import of torch from this module

        return applying(self, model, strength=strength, tokenizer=tokenizer, force=force)

    @property
    def changes_nothing(self) -> bool:
        """Whether the profile has no effect on any model at any strength."""
        scales = [head.scale for head in self.heads] + [neuron.scale for neuron in self.neurons]
        intercept = self.final_layer.intercept_scale and any(tensor.any() for tensor in self.tensors.values())
        return all(scale == 1 for scale in scales) and not (self.final_layer.self_only_attention or intercept)

    @field_validator("name")
    @classmethod
    def _name_is_free(cls, name: str) -> str:
        if name == BASELINE:
            raise ValueError(f"{BASELINE!r} is the name of the unsteered model and cannot be used for a profile")
        return name

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        heads = [(scale.layer, scale.head) for scale in self.heads]
        neurons = [(scale.layer, scale.neuron) for scale in self.neurons]
        _check_components("heads", heads, (self.model.layers, self.model.heads))
        _check_components("neurons", neurons, (self.model.layers, self.model.neurons))
        if self.when is not None and self.when.largest_token >= self.model.vocab_size:
            raise ValueError(
                f"when names the token {self.when.largest_token}, but the profile's model has {self.model.vocab_size} "
                "tokens"
            )
        needed = {INTERCEPT_TENSOR} if self.final_layer.intercept_scale else set()
        if set(self.tensors) != needed:
            raise ValueError(f"tensors are {sorted(self.tensors)}; this profile needs {sorted(needed)}")
        for name, tensor in self.tensors.items():
            _check_tensor(name, tensor, (self.model.hidden_size,))
        return self


def check_strength(strength: float) -> float:
    """Return ``strength`` if it is a finite number in the allowed range.

    Raises:
        StrengthError: it is not; the message names the value and the range.
    """
    if not -MAX_STRENGTH <= strength <= MAX_STRENGTH:  # false for NaN too
        raise StrengthError(f"strength is {strength}; allowed: finite numbers in {-MAX_STRENGTH:g}..{MAX_STRENGTH:g}")
    return strength


def strength_text(strength: float) -> str:
    """Return the shortest text that parses to exactly this number: ``2``, ``0.5``, ``1e-07``.

    It is not rounded, so that two different strengths or scales never look the same.
    """
    return repr(float(strength)).removesuffix(".0")


def _check_components(field: str, keys: list[tuple[int, int]], counts: tuple[int, int]) -> None:
    repeated = sorted(key for key, times in Counter(keys).items() if times > 1)
    if repeated:
        raise ValueError(f"{field} names a component more than once: {repeated[:5]}")
    outside = [key for key in keys if key[0] >= counts[0] or key[1] >= counts[1]]
    if outside:
        raise ValueError(
            f"{field} names {outside[:5]}, but the profile's model has {counts[0]} layers of {counts[1]} {field}"
        )


def _check_tensor(name: str, tensor: np.ndarray[Any, Any], shape: tuple[int, ...]) -> None:
    if tensor.dtype != np.float32:
        raise ValueError(f"tensor {name} is of type {tensor.dtype}; allowed: float32")
    if tensor.shape != shape:
        raise ValueError(f"tensor {name} has shape {tensor.shape}; allowed for this model: {shape}")
    if not np.isfinite(tensor).all():
        raise ValueError(f"tensor {name} contains values that are not finite")


def _range(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:g}" if low == high else f"{low:g}..{high:g}"
