"""The final layer in a profile: what changes there, where, and behind which gate. Does not import torch."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from steering_profiles.conditions import Condition
from steering_profiles.fields import Frozen, Number, Share, strength_text

INTERCEPT_TENSOR = "final_layer.intercept"
"""Name of the intercept ``b``, ``[hidden_size]``, in the profile's safetensors file."""


class Gate(Frozen):
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


class FinalLayer(Frozen):
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


class ConditionalFinalLayer(Frozen):
    """Final-layer effects under a condition of their own, with an intercept of their own."""

    self_only_attention: Annotated[Share, Field(alias="own_attention")] = 0.0
    """As in :class:`FinalLayer`."""
    intercept_scale: Number = 0.0
    """As in :class:`FinalLayer`, of the intercept :func:`intercept_tensor` of its place in the profile."""
    when: Annotated[Condition, Field(strict=False)]
    """Positions at which the effects apply, of those at which the profile does."""

    @property
    def unconditional(self) -> FinalLayer:
        """The effects without their condition."""
        return FinalLayer(self_only_attention=self.self_only_attention, intercept_scale=self.intercept_scale)


def intercept_tensor(place: int) -> str:
    """Return the name of the intercept of ``final_layers[place]`` in the profile's safetensors file."""
    return f"final_layers.{place}.intercept"
