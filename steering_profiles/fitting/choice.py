"""What a search settles on, and the profile that is made of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic import JsonValue

from steering_profiles.evaluation import Accuracy
from steering_profiles.fitting.components import Scales
from steering_profiles.fitting.grid import MeasuredPoint
from steering_profiles.fitting.stepwise import SearchStep
from steering_profiles.schema import HeadScale, ModelIdentity, NeuronScale, Profile
from steering_profiles.steering import ProfileAtStrength, Steering


@dataclass(frozen=True)
class Choice:
    """Components and their scales, and what they were chosen from."""

    scales: Scales
    dev: Accuracy
    """On the prompts that the choice was made on."""
    facts: dict[str, JsonValue]
    """What was chosen, for the profile's provenance."""
    grid: Sequence[MeasuredPoint] = ()
    path: Sequence[SearchStep] = field(default=())


def profile_of(scales: Scales, model: ModelIdentity, name: str, task: str) -> Profile:
    """Return the profile that applies ``scales``."""
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
    )


def steering_of(scales: Scales, model: ModelIdentity) -> Steering:
    """Return what applies ``scales``; nothing at all where there are none."""
    return (ProfileAtStrength(profile_of(scales, model, "candidate", "a task")),) if scales else ()
