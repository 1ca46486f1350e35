"""Side-effect warnings: texts whose NLL a profile increases by more than a limit, read from its provenance."""

from collections.abc import Mapping

from steering_profiles.schema import Profile

NLL_LIMIT = 0.01
"""Limit of the relative NLL increase of a text; 0.01 is one percent."""


def side_effect_warnings(profile: Profile, limit: float = NLL_LIMIT) -> list[str]:
    """Return the texts whose NLL increases by more than ``limit``, largest increase first: ``["prose +2.3%"]``.

    The list is empty too for a profile whose side effects were not measured: see :func:`is_measured`. A record that
    cannot be read is listed as not readable.
    """
    recorded = profile.provenance.side_effects if profile.provenance is not None else {}
    changes = {name: _change(record) for name, record in recorded.items()}
    unreadable = [f"{name}: not readable" for name, change in changes.items() if change is None]
    return (
        texts_over_limit({name: change for name, change in changes.items() if change is not None}, limit) + unreadable
    )


def is_measured(profile: Profile) -> bool:
    """Return whether the provenance of ``profile`` records side effects."""
    return profile.provenance is not None and bool(profile.provenance.side_effects)


def exceeds_limit(change: float, limit: float = NLL_LIMIT) -> bool:
    """Return whether a relative NLL increase exceeds ``limit``; one that is equal to it up to rounding does not."""
    return round(change, 6) > limit


def texts_over_limit(changes: Mapping[str, float], limit: float = NLL_LIMIT) -> list[str]:
    """Return the entries of ``changes`` (text -> relative NLL increase) over ``limit``, largest first."""
    over = sorted((name for name in changes if exceeds_limit(changes[name], limit)), key=lambda name: -changes[name])
    return [f"{name} {percent(changes[name])}" for name in over]


def percent(change: float) -> str:
    """Format a relative NLL increase: ``+2.3%``, with two decimals if it is below 0.1%: ``+0.04%``."""
    return f"{100 * change:+.1f}%" if abs(change) >= 0.001 else f"{100 * change:+.2f}%"


def _change(record: object) -> float | None:
    if not isinstance(record, Mapping):
        return None
    before, after = _number(record.get("nll_before")), _number(record.get("nll_after"))
    return after / before - 1 if before is not None and after is not None and before > 0 else None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
