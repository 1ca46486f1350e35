"""Table rows of the tokens of one sequence, which its steering's conditions choose."""

from collections.abc import Sequence
from typing import Protocol

from steering_profiles.composition import Steering


class Rows(Protocol):
    """What rows are acquired from: a table, or a handle."""

    def acquire(self, steering: Steering) -> int:
        """Return the row of ``steering``."""
        ...

    def release(self, row: int) -> None:
        """Release a row from :meth:`acquire`."""
        ...


class TokenRows:
    """Rows of one steering: one for each combination of its conditions that occurs, acquired when it first does.

    A steering without conditions has one row. Where no condition holds, only profiles without one take effect; if there
    are none, that is row 0, the identity.
    """

    def __init__(self, rows: Rows, steering: Steering) -> None:
        self._rows = rows
        self._steering = steering
        self._acquired: dict[int, int] = {}

    def of(self, held: Sequence[int]) -> list[int]:
        """Return the row of each position, where ``held`` are the conditions (:meth:`.ConditionTrace.held`).

        Raises:
            GateError: the steering is gated; use its ``closed`` or ``opened`` part.
        """
        return [self._row(one) for one in held]

    def release(self) -> None:
        """Release all rows."""
        while self._acquired:
            self._rows.release(self._acquired.popitem()[1])

    def _row(self, held: int) -> int:
        if held not in self._acquired:
            self._acquired[held] = self._rows.acquire(self._steering.where(held))
        return self._acquired[held]
