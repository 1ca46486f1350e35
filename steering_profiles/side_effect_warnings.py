"""Which profiles cost more than they should: side effects, as a profile's provenance records them, against a limit."""

from collections.abc import Mapping

from steering_profiles.schema import Profile

NLL_LIMIT = 0.01
"""By how much the NLL of a text may rise, as a share of what it was: 0.01 is one percent."""


def side_effect_warnings(profile: Profile, limit: float = NLL_LIMIT) -> list[str]:
    """Return the texts whose prediction suffers beyond ``limit``, worst first: ``["prose +2.3%"]``.

    Empty too for a profile whose side effects were never measured: see :func:`is_measured`. A record that cannot be
    read is named as such: what is not known to be harmless is not passed over.
    """
    recorded = profile.provenance.side_effects if profile.provenance is not None else {}
    changes = {name: _change(record) for name, record in recorded.items()}
    unreadable = [f"{name}: not readable" for name, change in changes.items() if change is None]
    return beyond({name: change for name, change in changes.items() if change is not None}, limit) + unreadable


def is_measured(profile: Profile) -> bool:
    """Whether the provenance of ``profile`` says what else it changes."""
    return profile.provenance is not None and bool(profile.provenance.side_effects)


def is_beyond(change: float, limit: float = NLL_LIMIT) -> bool:
    """Whether a rise of NLL, as a share, is one to flag; a rise of the limit itself is not, whatever rounding adds."""
    return round(change, 6) > limit


def beyond(changes: Mapping[str, float], limit: float = NLL_LIMIT) -> list[str]:
    """Return those of ``changes`` (text -> share by which its NLL rose) that are over ``limit``, worst first."""
    over = sorted((name for name in changes if is_beyond(changes[name], limit)), key=lambda name: -changes[name])
    return [f"{name} {percent(changes[name])}" for name in over]


def percent(change: float) -> str:
    """Write the share by which an NLL rose for people: ``+2.3%``, or ``+0.04%`` where one decimal would say nothing."""
    return f"{100 * change:+.1f}%" if abs(change) >= 0.001 else f"{100 * change:+.2f}%"


def _change(record: object) -> float | None:
    if not isinstance(record, Mapping):
        return None
    before, after = _number(record.get("nll_before")), _number(record.get("nll_after"))
    return after / before - 1 if before is not None and after is not None and before > 0 else None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
