"""The profile format, version 1.

A profile is a JSON file and, if it has tensors, a ``.safetensors`` file of the same name. This module has its types and
the checks that need no model. It does not import torch.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar

import numpy as np
from pydantic import ConfigDict, Field, ValidationError, field_validator, model_validator

from steering_profiles.conditions import Condition
from steering_profiles.errors import StrengthError
from steering_profiles.fields import Count, Facts, Frozen, Index, Integer, Number, ProfileName, Text, When
from steering_profiles.final_layer_fields import INTERCEPT_TENSOR, ConditionalFinalLayer, FinalLayer, intercept_tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BASELINE = "baseline"
"""Name of the unsteered arm; no profile may have it."""

MAX_STRENGTH = 10.0
"""Strengths are in ``-MAX_STRENGTH..MAX_STRENGTH``; 0 is no steering and 1 the profile as fitted."""

MOST_CONDITIONS = 8
"""Different conditions of one profile; the server tests each of them at every token."""


class ModelIdentity(Frozen):
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


class HeadScale(Frozen):
    """Factor of the output of one attention head, applied before the output projection."""

    layer: Index
    head: Index
    scale: Number
    when: When = None
    """Positions at which the scale applies, of those at which the profile does; None: all of them."""

    @property
    def component(self) -> str:
        """Name of the head, such as ``L11H2``."""
        return f"L{self.layer}H{self.head}"


class NeuronScale(Frozen):
    """Factor of the activation of one feed-forward neuron, applied before the down projection."""

    layer: Index
    neuron: Index
    scale: Number
    when: When = None
    """Positions at which the scale applies, of those at which the profile does; None: all of them."""

    @property
    def component(self) -> str:
        """Name of the neuron, such as ``L3N120``."""
        return f"L{self.layer}N{self.neuron}"


class Provenance(Frozen):
    """Origin of a profile: what is needed to fit it again, and the figures it was chosen by."""

    tool_version: Text
    command: Text
    task: Text
    seed: Integer
    split_sizes: Mapping[Text, Index] = {}
    grid: Facts = Field(default_factory=dict)
    chosen: Facts = Field(default_factory=dict)
    dev: Facts = Field(default_factory=dict)
    test: Facts = Field(default_factory=dict)
    side_effects: Facts = Field(default_factory=dict)
    """Effects on other text, as written by :meth:`steering_profiles.evaluation.SideEffects.record`."""


class Profile(Frozen):
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
    # Omitted if empty, so that profiles without them have the same content hash as before they existed.
    final_layers: Annotated[tuple[ConditionalFinalLayer, ...], Field(exclude_if=lambda layers: not layers)] = ()
    """Effects of the final layer that differ by condition; a profile has these or ``final_layer``."""
    when: When = None
    """Positions at which the profile takes effect; None: all positions."""
    provenance: Provenance | None = None
    tensors: Annotated[Mapping[str, np.ndarray[Any, Any]], Field(exclude=True, repr=False)] = {}
    """Tensors of the safetensors file, float32: the intercepts of the final layer."""

    @property
    def summary(self) -> str:
        """Short description of the changes, such as ``20 heads x 1.5``; under several conditions, of each."""
        parts = self.split()
        if len(parts) == 1:
            changes, when = parts[0]._changes, parts[0].when
            return changes if when is None else f"{changes}; where {when}"
        return "; ".join(
            f"{part._changes} {'everywhere' if part.when is None else f'where {part.when}'}" for part in parts
        )

    @property
    def brief(self) -> str:
        """The changes without what their conditions are: ``20 heads x 0.5..1.5 under 2 conditions``."""
        shares = [one.self_only_attention for one in self.final_layers if one.self_only_attention]
        factors = [one.intercept_scale for one in self.final_layers if one.intercept_scale]
        parts = [
            self._changes if self.scales or not self.final_layers else "",
            f"self-only attention {_range(shares)}" if shares else "",
            f"intercepts x {_range(factors)}" if factors else "",
        ]
        count = len(self.conditions)
        under = "" if not count else " under a condition" if count == 1 else f" under {count} conditions"
        return f"{', '.join(filter(None, parts))}{under}"

    @property
    def scales(self) -> tuple[HeadScale | NeuronScale, ...]:
        """The scales of heads and of neurons."""
        return (*self.heads, *self.neurons)

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """The different conditions under which something of the profile takes effect; empty if all does everywhere."""
        return tuple(dict.fromkeys(part.when for part in self.split() if part.when is not None))

    def split(self) -> tuple["Profile", ...]:
        """Return profiles with at most one condition each, which applied together have the same effect.

        That is only itself if no scale and no final layer has a condition of its own; otherwise one for each condition.
        What has no condition of its own comes first, and then the conditions in the order of their first scale, or
        final layer. Where the profile has a condition and a scale another, both must hold.
        """
        own = dict.fromkeys(one.when for one in (*self.scales, *self.final_layers))
        if own.keys() <= {None}:
            return (self,)
        heads: dict[Condition | None, list[HeadScale]] = {when: [] for when in own}
        neurons: dict[Condition | None, list[NeuronScale]] = {when: [] for when in own}
        for head in self.heads:
            heads[head.when].append(head)
        for neuron in self.neurons:
            neurons[neuron.when].append(neuron)
        final_layers = {
            one.when: (one.unconditional, self._intercept_of(at)) for at, one in enumerate(self.final_layers)
        }
        common = [None] if None in own or self.final_layer != FinalLayer() else []
        split = []
        for when in (*common, *(when for when in own if when is not None)):
            changed: dict[str, Any] = {
                "heads": tuple(_bare(scale) for scale in heads.get(when, ())),
                "neurons": tuple(_bare(scale) for scale in neurons.get(when, ())),
                "final_layers": (),
                "when": _both(self.when, when),
            }
            if when is not None:
                layer, tensors = final_layers.get(when, (FinalLayer(), {}))
                changed |= {"final_layer": layer, "tensors": tensors}
            split.append(self.model_copy(update=changed))
        return tuple(split)

    def _intercept_of(self, place: int) -> dict[str, np.ndarray[Any, Any]]:
        """Return the tensors of the profile that has only ``final_layers[place]``."""
        tensor = self.tensors.get(intercept_tensor(place))
        return {} if tensor is None else {INTERCEPT_TENSOR: tensor}

    def everywhere(self) -> "Profile":
        """Return the profile without its conditions.

        A component that it scales under several conditions occurs once for each: at every position all of its factors
        apply. So do all of its final layers: the largest share of self-only attention, and the sum of the intercepts.
        """
        update: dict[str, Any] = {
            "heads": tuple(_bare(scale) for scale in self.heads),
            "neurons": tuple(_bare(scale) for scale in self.neurons),
            "when": None,
        }
        if self.final_layers:
            shares = [one.self_only_attention for one in self.final_layers]
            intercepts = [
                one.intercept_scale * self.tensors[intercept_tensor(at)]
                for at, one in enumerate(self.final_layers)
                if one.intercept_scale
            ]
            update |= {
                "final_layers": (),
                "final_layer": FinalLayer(self_only_attention=max(shares), intercept_scale=1.0 if intercepts else 0.0),
                "tensors": {INTERCEPT_TENSOR: np.sum(intercepts, axis=0, dtype=np.float32)} if intercepts else {},
            }
        return self.model_copy(update=update)

    @property
    def _changes(self) -> str:
        """The changes without their conditions."""
        parts = [
            f"{len({scale.component for scale in scales})} {what} x {_range([scale.scale for scale in scales])}"
            for what, scales in (("heads", self.heads), ("neurons", self.neurons))
            if scales
        ]
        return ", ".join(filter(None, (*parts, self.final_layer.summary))) or "nothing"

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
        layers = [(self.final_layer, INTERCEPT_TENSOR)]
        layers += [(one.unconditional, intercept_tensor(at)) for at, one in enumerate(self.final_layers)]
        return all(scale.scale == 1 for scale in self.scales) and not any(
            layer.self_only_attention or (layer.intercept_scale and self.tensors[name].any()) for layer, name in layers
        )

    @field_validator("name")
    @classmethod
    def _name_is_free(cls, name: str) -> str:
        if name == BASELINE:
            raise ValueError(f"{BASELINE!r} is the name of the unsteered model and cannot be used for a profile")
        return name

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        heads = [(scale.layer, scale.head, scale.when) for scale in self.heads]
        neurons = [(scale.layer, scale.neuron, scale.when) for scale in self.neurons]
        _check_components("heads", heads, (self.model.layers, self.model.heads))
        _check_components("neurons", neurons, (self.model.layers, self.model.neurons))
        self._check_conditions()
        if self.final_layers and self.final_layer != FinalLayer():
            raise ValueError(
                "final_layers: a profile has final_layer or final_layers, not both; what applies everywhere can be a "
                "profile of its own, applied beside this one"
            )
        needed = {INTERCEPT_TENSOR} if self.final_layer.intercept_scale else set()
        needed |= {intercept_tensor(at) for at, one in enumerate(self.final_layers) if one.intercept_scale}
        if set(self.tensors) != needed:
            raise ValueError(f"tensors are {sorted(self.tensors)}; this profile needs {sorted(needed)}")
        for name, tensor in self.tensors.items():
            _check_tensor(name, tensor, (self.model.hidden_size,))
        return self

    def _check_conditions(self) -> None:
        named: dict[Condition, str] = {}
        for scale in self.scales:
            if scale.when is not None:
                named.setdefault(scale.when, f"when of {scale.component}")
        first: dict[Condition, int] = {}
        for at, layer in enumerate(self.final_layers):
            if first.setdefault(layer.when, at) != at:
                raise ValueError(f"final_layers.{at} has the condition of final_layers.{first[layer.when]}")
            named.setdefault(layer.when, f"when of final_layers.{at}")
        if len(named) > MOST_CONDITIONS:
            raise ValueError(f"the profile has {len(named)} different conditions; allowed: {MOST_CONDITIONS}")
        if self.when is not None:
            named[self.when] = "when"
        for when, place in named.items():
            if when.largest_token >= self.model.vocab_size:
                raise ValueError(
                    f"{place} names the token {when.largest_token}, but the profile's model has "
                    f"{self.model.vocab_size} tokens"
                )
            try:
                _both(self.when, when)
            except ValidationError as exc:
                why = exc.errors()[0]["msg"].removeprefix("Value error, ")
                raise ValueError(f"{place} and when of the profile must both hold: {why}") from exc


def check_strength(strength: float) -> float:
    """Return ``strength`` if it is a finite number in the allowed range.

    Raises:
        StrengthError: it is not; the message names the value and the range.
    """
    if not -MAX_STRENGTH <= strength <= MAX_STRENGTH:  # false for NaN too
        raise StrengthError(f"strength is {strength}; allowed: finite numbers in {-MAX_STRENGTH:g}..{MAX_STRENGTH:g}")
    return strength


_Scale = TypeVar("_Scale", HeadScale, NeuronScale)


def _bare(scale: _Scale) -> _Scale:
    """Return a scale without its condition."""
    return scale if scale.when is None else scale.model_copy(update={"when": None})


def _both(one: Condition | None, other: Condition | None) -> Condition | None:
    """Return the condition that holds where both do.

    Raises:
        ValidationError: it has more parts or levels than a condition may have.
    """
    if one is None or other is None or one == other:
        return one or other
    return Condition(all_=(one, other))


def _check_components(field: str, keys: list[tuple[int, int, Condition | None]], counts: tuple[int, int]) -> None:
    repeated = {key for key, times in Counter(keys).items() if times > 1}
    if repeated:
        under = " under the same condition" if any(when is not None for *_, when in repeated) else ""
        places = sorted({key[:2] for key in repeated})
        raise ValueError(f"{field} names a component more than once{under}: {places[:5]}")
    outside = [key[:2] for key in keys if key[0] >= counts[0] or key[1] >= counts[1]]
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
