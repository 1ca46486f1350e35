"""Progress bars on the terminal."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars
from rich.text import Text


class _StagedBars:
    """One progress bar per stage; those of earlier stages stay visible."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._current: TaskID | None = None

    def stage(self, name: str, total: int) -> None:
        if self._current is None:
            self._bars.start()  # not before: an error before the first stage is printed without an empty line above
        else:
            self._bars.stop_task(self._current)
        self._current = self._bars.add_task(name, total=total)

    def advance(self, steps: int = 1) -> None:
        if self._current is not None:
            self._bars.advance(self._current, steps)


@contextmanager
def progress_bars() -> Iterator[_StagedBars]:
    """Show progress on standard error while the context lasts."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with _shown(Bars(*columns, console=Console(stderr=True))) as bars:
        yield bars


@contextmanager
def rated_bars() -> Iterator[_StagedBars]:
    """Show progress on standard error with the rate and the time left, while the context lasts."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with _shown(Bars(*columns, console=Console(stderr=True))) as bars:
        yield bars


@contextmanager
def _shown(bars: Bars) -> Iterator[_StagedBars]:
    try:
        yield _StagedBars(bars)
    finally:
        if bars.live.is_started:
            bars.stop()


class _Rate(ProgressColumn):
    """Steps a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.1f}/s")
