"""Progress of long-running work."""

from typing import Protocol


class Progress(Protocol):
    """Receiver of progress, such as a progress bar."""

    def stage(self, name: str, total: int) -> None:
        """Start a stage of ``total`` steps; the previous stage is complete."""
        ...

    def advance(self, steps: int = 1) -> None:
        """Count ``steps`` more steps of the current stage as done."""
        ...


class Silent:
    """Progress that is not shown."""

    def stage(self, name: str, total: int) -> None:
        """Do nothing."""

    def advance(self, steps: int = 1) -> None:
        """Do nothing."""
