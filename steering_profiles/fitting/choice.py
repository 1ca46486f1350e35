"""The result of a search over component scales, and the profile made from it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic import JsonValue

from steering_profiles.conditions import Condition
from steering_profiles.evaluation import Accuracy
from steering_profiles.fitting.components import Scales
from steering_profiles.fitting.grid import MeasuredPoint
from steering_profiles.fitting.no_harm import GroupChange
from steering_profiles.fitting.stepwise import SearchStep
from steering_profiles.schema import HeadScale, ModelIdentity, NeuronScale, Profile
from steering_profiles.steering import UNSTEERED, ProfileAtStrength, Steering


@dataclass(frozen=True)
class Choice:
    """The chosen components and scales, and the measurements that they were chosen from."""

    scales: Scales
    dev: Accuracy
    """Accuracy on dev."""
    facts: dict[str, JsonValue]
    """Description of the choice, for the profile's provenance."""
    grid: Sequence[MeasuredPoint] = ()
    path: Sequence[SearchStep] = field(default=())
    condition: Condition | None = None
    """Condition of the profile."""
    harm: Sequence[GroupChange] = ()
    """Changes of the groups of the choosing formats, if a loss was limited; the largest loss first."""
    refused: Sequence[str] = ()
    """What was better on the validation set and not allowed, each with the limit that it exceeds."""


def profile_of(
    scales: Scales, model: ModelIdentity, name: str, task: str, condition: Condition | None = None
) -> Profile:
    """Return the profile that applies ``scales`` where ``condition`` holds, or everywhere."""
    heads = sorted((c.layer, c.index, scale) for c, scale in scales.items() if c.kind == "head")
    neurons = sorted((c.layer, c.index, scale) for c, scale in scales.items() if c.kind == "neuron")
    parts = [f"{len(some)} {what}" for some, what in ((heads, "attention heads"), (neurons, "neurons")) if some]
    return Profile(
        name=name,
        description=f"Scales {' and '.join(parts) or 'nothing'} so that the right answers on {task} become likelier.",
        method="rasteer",
        model=model,
        heads=tuple(HeadScale(layer=layer, head=head, scale=scale) for layer, head, scale in heads),
        neurons=tuple(NeuronScale(layer=layer, neuron=neuron, scale=scale) for layer, neuron, scale in neurons),
        when=condition if scales else None,
    )


def steering_of(scales: Scales, model: ModelIdentity, condition: Condition | None = None) -> Steering:
    """Return the steering that applies ``scales`` where ``condition`` holds; the empty steering if there are none."""
    if not scales:
        return UNSTEERED
    return Steering((ProfileAtStrength(profile_of(scales, model, "candidate", "a task", condition)),))
