"""How long-running work says how far it is."""

from typing import Protocol


class Progress(Protocol):
    """Something that shows progress to whoever waits."""

    def stage(self, name: str, total: int) -> None:
        """Begin a stage of ``total`` steps; the one before it is done."""
        ...

    def advance(self, steps: int = 1) -> None:
        """Count ``steps`` of the current stage as done."""
        ...


class Silent:
    """Shows nothing."""

    def stage(self, name: str, total: int) -> None:
        """Do nothing."""

    def advance(self, steps: int = 1) -> None:
        """Do nothing."""
