"""What a steering profile is, as data (format version 1).

A profile is one JSON file and, where it carries tensors, one ``.safetensors`` file beside it. This module
holds its types and the rules that can be checked without a model; it imports no torch.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints, field_validator, model_validator

from steering_profiles.errors import StrengthError

BASELINE = "baseline"
"""The name of the unsteered arm, which no profile may take."""

MAX_STRENGTH = 10.0
"""Strengths lie in ``-MAX_STRENGTH..MAX_STRENGTH``; 0 is no steering and 1 the profile as it was fitted."""

INTERCEPT_TENSOR = "final_layer.intercept"
"""Name of the intercept ``b`` (``[width]``) in the profile's safetensors file."""

ProfileName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Index = Annotated[int, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ModelIdentity(_Frozen):
    """The model that a profile was fitted on, in as much detail as tells two models apart."""

    id: str
    """Hub id or name of the model, for people; not compared."""
    architecture: str
    """The transformers class, for example ``LlamaForCausalLM``."""
    layers: Count
    heads: Count
    kv_heads: Count
    head_dim: Count
    neurons: Count
    width: Count
    vocab_size: Count
    fingerprint: str
    """SHA-256 over the parts of config and tokenizer that decide what a component computes."""


class HeadScale(_Frozen):
    """Multiply the output of one attention head by ``scale`` before the output projection."""

    layer: Index
    head: Index
    scale: float


class NeuronScale(_Frozen):
    """Multiply the activation of one feed-forward neuron by ``scale`` before the down projection."""

    layer: Index
    neuron: Index
    scale: float


class FinalLayer(_Frozen):
    """The two final-layer fixes of Lv et al. (arXiv:2403.19521)."""

    own_attention: Annotated[float, Field(ge=0, le=1)] = 0.0
    """How far each position's attention is replaced by its own value vector: 0 not at all, 1 wholly."""
    intercept_scale: float = 0.0
    """``lambda``: how much of the MLP intercept ``b`` is subtracted; may be negative."""


class Provenance(_Frozen):
    """Where a profile comes from: enough to make it again, and the figures it was chosen by."""

    tool_version: str
    command: str
    task: str
    seed: int
    split_sizes: Mapping[str, int] = {}
    grid: Mapping[str, JsonValue] = {}
    chosen: Mapping[str, JsonValue] = {}
    dev: Mapping[str, JsonValue] = {}
    test: Mapping[str, JsonValue] = {}


class Profile(_Frozen):
    """A steering profile: which components to change, by how much, and on which model that was fitted."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    format_version: Literal[1] = 1
    name: ProfileName
    description: str
    method: Literal["rasteer", "final-layer", "manual"]
    model: ModelIdentity
    heads: tuple[HeadScale, ...] = ()
    neurons: tuple[NeuronScale, ...] = ()
    final_layer: FinalLayer = FinalLayer()
    provenance: Provenance | None = None
    tensors: Annotated[Mapping[str, np.ndarray[Any, Any]], Field(exclude=True, repr=False)] = {}
    """Tensors of the safetensors file, float32; only ``INTERCEPT_TENSOR`` in format version 1."""

    @property
    def summary(self) -> str:
        """What the profile changes, in a few words: ``20 heads x 1.5``."""
        parts = [
            f"{len(scales)} {what} x {_range([scale.scale for scale in scales])}"
            for what, scales in (("heads", self.heads), ("neurons", self.neurons))
            if scales
        ]
        if self.final_layer.own_attention:
            parts.append(f"own-position attention {self.final_layer.own_attention:g}")
        if self.final_layer.intercept_scale:
            parts.append(f"intercept x {self.final_layer.intercept_scale:g}")
        return ", ".join(parts) or "nothing"

    @field_validator("name")
    @classmethod
    def _name_is_free(cls, name: str) -> str:
        if name == BASELINE:
            raise ValueError(f"{BASELINE!r} names the unsteered model and cannot name a profile")
        return name

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _refuse_repeats("heads", [(scale.layer, scale.head) for scale in self.heads])
        _refuse_repeats("neurons", [(scale.layer, scale.neuron) for scale in self.neurons])
        needed = {INTERCEPT_TENSOR} if self.final_layer.intercept_scale else set()
        if set(self.tensors) != needed:
            raise ValueError(f"tensors are {sorted(self.tensors)}, but this profile's settings need {sorted(needed)}")
        for name, tensor in self.tensors.items():
            if tensor.shape != (self.model.width,):
                raise ValueError(f"tensor {name} has shape {tensor.shape}; this model's is ({self.model.width},)")
            if not np.isfinite(tensor).all():
                raise ValueError(f"tensor {name} holds values that are not finite")
        return self


def check_strength(strength: float) -> float:
    """Return ``strength`` if it is a finite number in the allowed range.

    Raises:
        StrengthError: if it is not, naming the value and the range.
    """
    if not -MAX_STRENGTH <= strength <= MAX_STRENGTH:  # false for NaN too
        raise StrengthError(
            f"strength is {strength}; allowed are finite numbers in {-MAX_STRENGTH:g}..{MAX_STRENGTH:g}"
        )
    return strength


def _refuse_repeats(field: str, keys: list[tuple[int, int]]) -> None:
    repeated = {key for key in keys if keys.count(key) > 1} if len(set(keys)) < len(keys) else set()
    if repeated:
        raise ValueError(f"{field} names a component more than once: {sorted(repeated)[:5]}")


def _range(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:g}" if low == high else f"{low:g}..{high:g}"
