"""Comparisons of arms on a data set. They are made by the package ``steering_ab`` of the server's distribution."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steering_client.errors import MissingPackage

if TYPE_CHECKING:
    from steering_ab import Result

Items = str | Path | Iterable[Mapping[str, Any] | str]
"""Path of a data set, items with the fields of its lines, or prompts."""

_ARMS = ("baseline", "parentheses")


def ab(items: Items, arms: Sequence[str] = _ARMS, **options: Any) -> "Result":
    """Compare arms on a data set, as ``steer ab`` does, and return the result that its report is made of.

    Without a server, give ``answers`` that are there already, or a function that answers:

    >>> items = [{"prompt": str(n), "expected": str(n % 2)} for n in range(40)]
    >>> parity = [str(n % 2) for n in range(40)]
    >>> result = ab(items, answers={"ones": ["1"] * 40, "parity": parity})
    >>> result.compare("parity", "ones").difference
    0.5

    Args:
        items: Path of a data set, mappings with the fields of its lines, or prompts.
        arms: The arms, the reference first.
        options: ``url`` or ``client`` of a server, or ``answer`` or ``answers``; ``graders``, ``require``, ``repeats``,
            ``seed``, ``temperature``, ``max_tokens``, ``out`` and others: see ``steering_ab.ab_async``.

    Raises:
        MissingPackage: ``steering_ab`` is not installed.
        steering_ab.ABError: Something is given that is not allowed, or the arms cannot be asked.
    """
    result: Result = _package().ab(items, arms, **options)
    return result


async def ab_async(items: Items, arms: Sequence[str] = _ARMS, **options: Any) -> "Result":
    """Compare arms on a data set; see :func:`ab`. Raises the same errors."""
    result: Result = await _package().ab_async(items, arms, **options)
    return result


def _package() -> Any:
    try:
        import steering_ab
    except ModuleNotFoundError as exc:
        raise MissingPackage(
            f"comparisons are made by the package steering_ab of steering-server ({exc}); install it with: "
            "pip install steering-server, or in a checkout: pip install ."
        ) from exc
    return steering_ab
