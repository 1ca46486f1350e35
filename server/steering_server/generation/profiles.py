"""A profile of the catalogue, checked against the model and the engine that serve it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from steering_profiles.compatibility import check_compatibility, require_compatible
from steering_profiles.schema import ModelIdentity, Profile
from steering_profiles.store import Entry

Storage = Literal["shipped", "folder", "memory"]
"""Where a profile is kept: in the package, in the operator's folder, or only until the server ends."""


@dataclass(frozen=True)
class ProfileCard:
    """A profile of the catalogue and whether this server can apply it."""

    entry: Entry
    usable: bool
    forced: bool
    """Whether it was made for another model and is applied because the operator forced it."""
    reason: str | None
    """The reason why it is not usable or, for a forced one, what differs."""
    enabled: bool = True
    """Whether requests may use it; an administrator can disable it."""

    @property
    def available(self) -> bool:
        """Whether a request can name it."""
        return self.usable and self.enabled

    @property
    def storage(self) -> Storage:
        """Where it is kept."""
        if self.entry.shipped:
            return "shipped"
        return "memory" if self.entry.path is None else "folder"


CheckProfile = Callable[[Entry], ProfileCard]
"""Check a profile against the model and the engine, see :func:`check_profile`."""


def check_profile(
    entry: Entry, model: ModelIdentity, refuses: Callable[[Profile], str | None], *, force: bool
) -> ProfileCard:
    """Check a profile against ``model`` and return its card.

    ``refuses`` returns the reason why the engine cannot apply a profile, or None, see :meth:`.Backend.refuses`.
    ``force`` accepts profiles made for other models where their components exist.

    Raises:
        ProfileMismatch: it is one of the operator's own and cannot be applied. Shipped ones are listed as not usable.
    """
    refusal = refuses(entry.profile)
    if entry.shipped:
        found = check_compatibility(entry.profile, model, refusal)
    else:
        found = require_compatible(entry.profile, model, refusal, force=force)
    usable = found.matches or (force and not found.obstacles)
    reason = None if found.matches else "; ".join(found.differences + found.obstacles)
    return ProfileCard(entry, usable=usable, forced=usable and not found.matches, reason=reason)
