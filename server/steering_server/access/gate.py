"""Admission of requests: the caller behind the credentials of a request."""

import time
from collections import defaultdict

from steering_server.access.callers import Caller
from steering_server.access.keyring import Keyring
from steering_server.access.quotas import Clock, Meter, Usage
from steering_server.errors import Unauthorized

_SCHEME = "bearer"


class Gate:
    """Tells callers by their API keys, or takes every caller for the same if the server has no keys."""

    def __init__(
        self, keyring: Keyring | None = None, *, admin_without_key: bool = True, clock: Clock = time.monotonic
    ) -> None:
        """Use the keys of ``keyring``. Without one nobody needs a key, and ``admin_without_key`` says whether everybody
        may change the server."""
        self._keyring = keyring
        self._anybody = Caller(is_admin=keyring is None and admin_without_key)
        self._clock = clock
        self._usage: defaultdict[str, Usage] = defaultdict(Usage)

    @property
    def anybody(self) -> Caller:
        """The caller of requests that need no key."""
        return self._anybody

    def admit(self, authorizations: list[str]) -> Caller:
        """Return the caller with these values of the header ``Authorization``, whose request is to be counted.

        Raises:
            Unauthorized: the server has keys, and none of them is given.
        """
        if self._keyring is None:
            return self._anybody
        key = self._keyring.authenticate(_secret(authorizations))
        return Caller.of(key, Meter(key, self._usage[key.name], self._clock))


def _secret(authorizations: list[str]) -> bytes:
    if len(authorizations) != 1:
        reason = "no API key provided" if not authorizations else "several Authorization headers provided"
        raise Unauthorized(f"{reason}; send one header: Authorization: Bearer KEY")
    scheme, _, secret = authorizations[0].partition(" ")
    if scheme.lower() != _SCHEME or not secret.strip():
        raise Unauthorized("the Authorization header holds no API key; it must be: Authorization: Bearer KEY")
    return secret.strip().encode("latin-1")
