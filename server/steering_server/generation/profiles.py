"""The profiles of a catalogue, checked against the model and the engine that serve them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from steering_profiles.compatibility import check_compatibility, require_compatible
from steering_profiles.schema import ModelIdentity, Profile
from steering_profiles.store import Catalogue, Entry


@dataclass(frozen=True)
class ProfileCard:
    """A profile of the catalogue and whether this server can apply it."""

    entry: Entry
    usable: bool
    forced: bool
    """Whether it was made for another model and is applied because the operator forced it."""
    reason: str | None
    """The reason why it is not usable or, for a forced one, what differs."""


def check_profiles(
    catalogue: Catalogue, model: ModelIdentity, refuses: Callable[[Profile], str | None], *, force: bool
) -> Mapping[str, ProfileCard]:
    """Check every profile of ``catalogue`` against ``model``; return their cards by name.

    ``refuses`` returns the reason why the engine cannot apply a profile, or None, see :meth:`.Backend.refuses`.
    ``force`` accepts profiles made for other models where their components exist.

    Raises:
        ProfileMismatch: one of the operator's own profiles cannot be applied. Shipped ones are listed as not usable.
    """
    cards = {}
    for name in catalogue:
        entry = catalogue[name]
        refusal = refuses(entry.profile)
        if entry.shipped:
            found = check_compatibility(entry.profile, model, refusal)
        else:
            found = require_compatible(entry.profile, model, refusal, force=force)
        usable = found.matches or (force and not found.obstacles)
        reason = None if found.matches else "; ".join(found.differences + found.obstacles)
        cards[name] = ProfileCard(entry, usable=usable, forced=usable and not found.matches, reason=reason)
    return MappingProxyType(cards)
