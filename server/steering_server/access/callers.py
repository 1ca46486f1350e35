"""Who sends a request, and what they may do."""

from dataclasses import dataclass

from steering_server.access.keys import ApiKey
from steering_server.access.quotas import Meter
from steering_server.errors import Forbidden


@dataclass(frozen=True)
class Caller:
    """Who sends a request."""

    client: str | None = None
    """The name of the API key; None on a server without keys. The queue is fair over these names."""
    is_admin: bool = False
    profiles: frozenset[str] | None = None
    """The profiles that the caller may use, besides the baseline; None for all."""
    meter: Meter | None = None
    """Holds the caller to the limits of its key; None without limits."""

    @classmethod
    def of(cls, key: ApiKey, meter: Meter) -> "Caller":
        """Return the caller with this key."""
        profiles = None if key.profiles is None else frozenset(key.profiles)
        return cls(client=key.name, is_admin=key.role == "admin", profiles=profiles, meter=meter)

    def may_use(self, profile: str) -> bool:
        """Return whether the caller may use the profile of this name."""
        return self.profiles is None or profile in self.profiles

    def may_see(self, profile: str) -> bool:
        """Return whether the caller is told of the profile of this name: who may use it, and administrators."""
        return self.is_admin or self.may_use(profile)

    def require_profile(self, profile: str) -> None:
        """Check that the caller may use the profile of this name.

        Raises:
            Forbidden: they may not.
        """
        if not self.may_use(profile):
            allowed = ", ".join(sorted(self.profiles or ())) or "none"
            raise Forbidden(
                f"the API key {self.client} may not use the profile {profile}; it may use: {allowed}",
                code="profile_not_allowed",
            )

    def require_admin(self) -> None:
        """Check that the caller may change the server.

        Raises:
            Forbidden: they may not.
        """
        if self.is_admin:
            return
        reason = (
            "the server has no API keys and does not listen on a loopback address only"
            if self.client is None
            else f"the API key {self.client} has the role user"
        )
        raise Forbidden(f"this needs an API key with the role admin; {reason}", code="insufficient_permissions")
