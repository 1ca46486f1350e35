"""Values of labels. Every value makes time series of its own, so clients must not be able to make up new ones."""

from threading import Lock

from steering_profiles.composition import Steering
from steering_profiles.schema import BASELINE

OTHER = "other"
"""The value for everything past a label's bound."""
COMPOSED = "composed"
"""The profile of sequences with several profiles; there are too many ways to compose them for a value each."""


def profile_label(steering: Steering) -> str:
    """Return the label of a steering: the profile's name, ``baseline`` or ``composed``."""
    names = {one.profile.name for one in steering}
    if len(names) > 1:
        return COMPOSED
    return next(iter(names), BASELINE)


class BoundedValues:
    """The first ``limit`` different values are kept as they are, all later ones are ``other``."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: set[str] = set()
        self._lock = Lock()

    def __call__(self, value: str) -> str:
        """Return ``value``, or ``other`` if it is new and there are too many already."""
        with self._lock:
            if value not in self._known:
                if len(self._known) >= self._limit:
                    return OTHER
                self._known.add(value)
        return value
