"""Exposure ids, which say what was exposed to what.

An outcome is often sent before its exposure is stored, or to another replica. So an id holds the arm, the unit's hash
and the period, signed with a secret of the experiment: whoever has the experiment can tell a real id without a look-up,
and nobody else can make one.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
import struct
from dataclasses import dataclass

from steering_server.experiments.assignment import UNIT_BYTES

PREFIX = "exp_"
LENGTH = 48
"""Characters of an id."""

_FORM = struct.Struct(f">BH{UNIT_BYTES}s12s")  # arm, period, unit, random bytes
_MAC_BYTES = 10


@dataclass(frozen=True)
class ExposureId:
    """The content of an id."""

    arm: int
    """Place of the arm in the experiment."""
    period: int
    """Number of the period with the weights by which the unit was assigned, from 1."""
    unit: bytes
    """Hash of the unit."""


def new_exposure_id(content: ExposureId, secret: bytes) -> str:
    """Return a new id, signed with the experiment's ``secret``."""
    body = _FORM.pack(content.arm, content.period, content.unit, secrets.token_bytes(12))
    return PREFIX + base64.urlsafe_b64encode(body + _mac(body, secret)).decode("ascii")


def read_exposure_id(given: str, secret: bytes) -> ExposureId | None:
    """Return the content of an id; None if it was not signed with ``secret``."""
    if len(given) != LENGTH or not given.startswith(PREFIX) or not given.isascii():
        return None
    try:
        content = base64.b64decode(given[len(PREFIX) :], altchars=b"-_", validate=True)
    except binascii.Error:
        return None
    body, mac = content[: _FORM.size], content[_FORM.size :]
    if not hmac.compare_digest(mac, _mac(body, secret)):
        return None
    arm, period, unit, _ = _FORM.unpack(body)
    return ExposureId(arm, period, unit)


def _mac(body: bytes, secret: bytes) -> bytes:
    return hashlib.blake2b(body, key=secret, digest_size=_MAC_BYTES).digest()
