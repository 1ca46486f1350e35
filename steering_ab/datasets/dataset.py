"""A data set: its items, and the lines that cannot be used with the reason."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from steering_ab.datasets.item import Item, Unusable, item_of
from steering_ab.errors import DatasetError

FEWEST_ITEMS = 2
"""Minimum number of items of a comparison."""
FEWEST_FOR_A_TEST = 6
"""With fewer items the exact test is not significant at the level of 5%, whatever the answers."""

_SHOWN_FAULTS = 3


@dataclass(frozen=True)
class Fault:
    """A line that cannot be used."""

    line: int
    reason: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.reason}"


@dataclass(frozen=True)
class Dataset:
    """The items of a comparison."""

    name: str
    """The file's name, or what the items are called."""
    items: tuple[Item, ...]
    faults: tuple[Fault, ...] = ()
    content_hash: str | None = None
    """SHA-256 of the file; None for items that come from Python."""

    @cached_property
    def tags(self) -> tuple[str, ...]:
        """All tags, in the order in which they first occur."""
        return tuple(dict.fromkeys(tag for item in self.items for tag in item.tags))

    @cached_property
    def repeated(self) -> int:
        """Number of items that ask what an earlier one asks already."""
        return len(self.items) - len({item.asked for item in self.items})

    def without(self, faults: Iterable[Fault]) -> "Dataset":
        """Return the data set without the lines that ``faults`` name, which become faults of it."""
        more = tuple(faults)
        lines = {fault.line for fault in more}
        items = tuple(item for item in self.items if item.line not in lines)
        every = tuple(sorted((*self.faults, *more), key=lambda fault: fault.line))
        return Dataset(self.name, items, every, self.content_hash)

    def require_usable(self, *, strict: bool = False) -> "Dataset":
        """Return the data set if a comparison can be made on it.

        Raises:
            DatasetError: fewer than ``FEWEST_ITEMS`` lines can be used, or ``strict`` and one cannot be used.
        """
        reasons = "; ".join(map(str, self.faults[:_SHOWN_FAULTS]))
        more = len(self.faults) - _SHOWN_FAULTS
        reasons += f"; and {more:,} more" if more > 0 else ""
        if strict and self.faults:
            raise DatasetError(f"{self.name} has {_lines(len(self.faults))} that cannot be used: {reasons}")
        if len(self.items) < FEWEST_ITEMS:
            usable = f"{len(self.items)} item{'' if len(self.items) == 1 else 's'} that can be used"
            left_out = f" ({_lines(len(self.faults))} left out: {reasons})" if self.faults else ""
            raise DatasetError(f"{self.name} has {usable}{left_out}; a comparison needs at least {FEWEST_ITEMS}")
        return self


def collect(lines: Iterable[tuple[int, Mapping[str, Any] | Fault]]) -> tuple[tuple[Item, ...], tuple[Fault, ...]]:
    """Return the items that ``lines`` describe, each with its number, and the faults among them."""
    items: dict[str, Item] = {}
    faults: list[Fault] = []
    for number, content in lines:
        if isinstance(content, Fault):
            faults.append(content)
            continue
        try:
            item = item_of(content, number)
        except Unusable as exc:
            faults.append(Fault(number, str(exc)))
            continue
        if item.id in items:
            faults.append(Fault(number, f"id: {item.id!r} is that of line {items[item.id].line} already"))
        else:
            items[item.id] = item
    return tuple(items.values()), tuple(faults)


def dataset_of(items: Iterable[Mapping[str, Any] | str], name: str = "items") -> Dataset:
    """Return the data set of ``items``, mappings with the fields of a line, or prompts.

    Raises:
        DatasetError: an item is not valid, or there are fewer than ``FEWEST_ITEMS``.
    """
    given = enumerate(items, start=1)
    usable, faults = collect(
        (number, {"prompt": item} if isinstance(item, str) else _mapping(item, number)) for number, item in given
    )
    return Dataset(name, usable, faults).require_usable(strict=True)


def _mapping(item: object, number: int) -> Mapping[str, Any] | Fault:
    return item if isinstance(item, Mapping) else Fault(number, f"is {item!r:.60}; allowed: a mapping, or a prompt")


def _lines(number: int) -> str:
    return f"{number:,} line{'' if number == 1 else 's'}"
