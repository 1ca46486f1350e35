"""Which profiles vLLM's workers can apply: those that it was started with, and that vLLM is able to."""

from collections.abc import Iterable

from steering_profiles.models import Anatomy
from steering_profiles.schema import Profile
from steering_profiles.store import content_hash
from steering_server.engines.vllm.plugin.served import refusal


class Applicable:
    """Profiles that can be applied. Until it is sealed, all that vLLM is able to."""

    def __init__(self, anatomy: Anatomy, no_conditions: str | None) -> None:
        """Judge profiles for a model; ``no_conditions`` is the reason why vLLM cannot test conditions, if it cannot."""
        self._anatomy = anatomy
        self._no_conditions = no_conditions
        self._started: frozenset[str] | None = None
        self._hashes: dict[int, tuple[Profile, str]] = {}

    def seal(self, started: Iterable[str]) -> None:
        """Take the content hashes of the profiles that vLLM has been started with."""
        self._started = frozenset(started)

    def refuses(self, profile: Profile) -> str | None:
        """Return the reason why ``profile`` cannot be applied, or None if it can."""
        reason = refusal(profile, self._anatomy, self._no_conditions)
        if reason is not None or self._started is None or self._hash(profile) in self._started:
            return reason
        return "vLLM has the profiles that the server was started with; start it again to apply this one"

    def _hash(self, profile: Profile) -> str:
        known = self._hashes.get(id(profile))
        if known is None or known[0] is not profile:
            known = self._hashes[id(profile)] = profile, content_hash(profile)
        return known[1]
