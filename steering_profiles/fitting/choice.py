"""The result of a search over component scales, and the profile made from it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic import JsonValue

from steering_profiles.evaluation import Accuracy
from steering_profiles.fitting.components import Component, Scales, ScaleSet
from steering_profiles.fitting.grid import MeasuredPoint
from steering_profiles.fitting.no_harm import GroupChange
from steering_profiles.fitting.rounds import Round
from steering_profiles.fitting.stepwise import SearchStep
from steering_profiles.schema import HeadScale, ModelIdentity, NeuronScale, Profile
from steering_profiles.steering import UNSTEERED, ProfileAtStrength, Steering


@dataclass(frozen=True)
class Choice:
    """The chosen components and scales, and the measurements that they were chosen from."""

    sets: Sequence[ScaleSet]
    """Scales by the conditions under which they apply."""
    dev: Accuracy
    """Accuracy on dev."""
    facts: dict[str, JsonValue]
    """Description of the choice, for the profile's provenance."""
    grid: Sequence[MeasuredPoint] = ()
    rounds: Sequence[Round] = field(default=())
    """The rounds of a stepwise search, each of which has found one of the sets or nothing."""
    harm: Sequence[GroupChange] = ()
    """Changes of the groups of the choosing formats, if a loss was limited; the largest loss first."""
    refused: Sequence[str] = ()
    """What was better on the validation set and not allowed, each with the limit that it exceeds."""

    @property
    def path(self) -> Sequence[SearchStep]:
        """The measured steps of a stepwise search that led to the sets, those of the first set first."""
        return [point for one in found_sets(self.rounds) for point in one.path]

    @property
    def scales(self) -> Scales:
        """The scale of each component; of several under different conditions the one that is farthest from 1."""
        farthest: dict[Component, float] = {}
        for component, scale in (item for one in self.sets for item in one.scales.items()):
            if abs(scale - 1) > abs(farthest.get(component, 1.0) - 1):
                farthest[component] = scale
        return farthest


def found_sets(rounds: Sequence[Round]) -> Sequence[Round]:
    """Return the rounds that found a set, or the first one if none did."""
    return [one for one in rounds if one.chosen.scales] or rounds[:1]


def profile_of(sets: Sequence[ScaleSet], model: ModelIdentity, name: str, task: str) -> Profile:
    """Return the profile that applies each of ``sets`` where its condition holds, or everywhere.

    The condition of a single set is that of the profile. Of several each scale has its own.
    """
    given = [one for one in sets if one.scales]
    own = len(given) > 1
    items = [(c, place, scale) for place, one in enumerate(given) for c, scale in sorted(one.scales.items())]
    heads = tuple(
        HeadScale(layer=c.layer, head=c.index, scale=scale, when=given[place].condition if own else None)
        for c, place, scale in items
        if c.kind == "head"
    )
    neurons = tuple(
        NeuronScale(layer=c.layer, neuron=c.index, scale=scale, when=given[place].condition if own else None)
        for c, place, scale in items
        if c.kind == "neuron"
    )
    counts = (
        (len({scale.component for scale in heads}), "attention heads"),
        (len({scale.component for scale in neurons}), "neurons"),
    )
    parts = [f"{count} {what}" for count, what in counts if count]
    return Profile(
        name=name,
        description=f"Scales {' and '.join(parts) or 'nothing'} so that the right answers on {task} become likelier.",
        method="rasteer",
        model=model,
        heads=heads,
        neurons=neurons,
        when=given[0].condition if len(given) == 1 else None,
    )


def steering_of(sets: Sequence[ScaleSet], model: ModelIdentity) -> Steering:
    """Return the steering that applies each of ``sets`` where its condition holds; empty if they have no scales."""
    if not any(one.scales for one in sets):
        return UNSTEERED
    return Steering((ProfileAtStrength(profile_of(sets, model, "candidate", "a task")),))
