"""Assignment of units to arms, by hash: sticky, without a look-up, and the same on every replica.

It is weighted rendezvous hashing (Schindelhauer and Schomaker, "Weighted distributed hash tables", SPAA 2005): each
arm draws an exponential variable from the hash of the unit, with its weight as the rate, and the smallest wins. A
change of weights moves the fewest units that it can: none between two arms whose weights keep their ratio.
"""

import hashlib
import math
from collections.abc import Mapping

UNIT_BYTES = 8
"""Bytes of a unit's hash: among a million units two are the same with a probability of 3e-8."""

_SCALE = 2.0**-64


class Assigner:
    """Assigns the units of one experiment."""

    def __init__(self, experiment: str, salt: str, weights: Mapping[str, float]) -> None:
        """``weights`` are those of the arms by name; an arm of weight 0 gets no units."""
        start = hashlib.blake2b(f"{experiment}\0{salt}\0".encode(), digest_size=UNIT_BYTES)
        self._unit = start
        self._arms = []
        for arm, weight in weights.items():
            if weight > 0:
                of_arm = start.copy()
                of_arm.update(f"{arm}\0".encode())
                self._arms.append((arm, weight, of_arm))

    def arm_of(self, unit: bytes) -> str:
        """Return the arm of a unit."""
        best, least = "", math.inf
        for arm, weight, start in self._arms:
            digest = start.copy()
            digest.update(unit)
            uniform = (int.from_bytes(digest.digest()) + 0.5) * _SCALE
            drawn = -math.log(uniform) / weight
            if drawn < least:
                best, least = arm, drawn
        return best

    def unit_hash(self, unit: bytes) -> bytes:
        """Return what is stored of a unit; it depends on the salt, so that experiments cannot be joined by it."""
        digest = self._unit.copy()
        digest.update(b"\0unit\0" + unit)
        return digest.digest()
