"""Which profiles of a catalogue a model can be steered with."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from steering_profiles.compatibility import check_compatibility, require_compatible
from steering_profiles.schema import ModelIdentity
from steering_profiles.store import Catalogue, Entry


@dataclass(frozen=True)
class ProfileCard:
    """A profile of the catalogue and whether this server can apply it."""

    entry: Entry
    usable: bool
    forced: bool
    """It was made for another model and is applied because the operator said so."""
    reason: str | None
    """Why it is not usable, or what differs where it was forced."""


def check_profiles(
    catalogue: Catalogue, model: ModelIdentity, refused: str | None, *, force: bool
) -> Mapping[str, ProfileCard]:
    """Return which profiles can steer ``model``, by name; ``force`` takes those made for others where they can be.

    ``refused`` is why the model's neurons cannot be scaled; None if they can.

    Raises:
        ProfileMismatch: one of the operator's own cannot.
    """
    cards = {}
    for name in catalogue:
        entry = catalogue[name]
        if entry.shipped:
            fit = check_compatibility(entry.profile, model, refused)
        else:
            fit = require_compatible(entry.profile, model, refused, force=force)
        usable = fit.matches or (force and not fit.obstacles)
        reason = None if fit.matches else "; ".join(fit.differences + fit.obstacles)
        cards[name] = ProfileCard(entry, usable=usable, forced=usable and not fit.matches, reason=reason)
    return MappingProxyType(cards)
