"""Amounts used in the last minute."""

from collections import deque
from dataclasses import dataclass

MINUTE = 60.0
"""Seconds."""


@dataclass
class Charge:
    """An amount that was used at a time."""

    at: float
    amount: int


class MinuteWindow:
    """Charges of the last minute. Times are seconds of one clock, and never decrease."""

    def __init__(self) -> None:
        self._charges: deque[Charge] = deque()
        self._total = 0

    def used(self, now: float) -> int:
        """Return the amount charged in the minute before ``now``."""
        while self._charges and self._charges[0].at + MINUTE <= now:
            self._total -= self._charges.popleft().amount
        return self._total

    def wait(self, amount: int, limit: int, now: float) -> float:
        """Return the seconds until ``amount``, at most ``limit``, can be charged if nothing else is; 0 for now."""
        excess = self.used(now) + amount - limit
        for charge in self._charges:
            if excess <= 0:
                break
            excess -= charge.amount
            wait = charge.at + MINUTE - now
            if excess <= 0:
                return wait
        return 0.0

    def until_unused(self, now: float) -> float:
        """Return the seconds until nothing of what was charged so far counts any more."""
        return self._charges[-1].at + MINUTE - now if self.used(now) and self._charges else 0.0

    def charge(self, amount: int, now: float) -> Charge:
        """Charge ``amount``, whatever the limit."""
        self.used(now)
        charge = Charge(now, amount)
        self._charges.append(charge)
        self._total += amount
        return charge

    def correct(self, charge: Charge, amount: int, now: float) -> None:
        """Change an earlier charge to ``amount``."""
        self.used(now)
        if charge.at + MINUTE > now:
            self._total += amount - charge.amount
        charge.amount = amount
