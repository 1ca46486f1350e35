"""Progress bars on the terminal."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars


class _StagedBars:
    """One progress bar per stage; those of earlier stages stay visible."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._current: TaskID | None = None

    def stage(self, name: str, total: int) -> None:
        if self._current is not None:
            self._bars.stop_task(self._current)
        self._current = self._bars.add_task(name, total=total)

    def advance(self, steps: int = 1) -> None:
        if self._current is not None:
            self._bars.advance(self._current, steps)


@contextmanager
def progress_bars() -> Iterator[_StagedBars]:
    """Show progress on standard error while the context lasts."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bars(*columns, console=Console(stderr=True)) as bars:
        yield _StagedBars(bars)
