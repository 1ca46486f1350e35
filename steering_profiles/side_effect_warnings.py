"""Side-effect warnings: what a profile makes worse by more than a limit, read from its provenance."""

from collections.abc import Iterator, Mapping, Sequence

from steering_profiles.schema import Profile

NLL_LIMIT = 0.01
"""Limit of the relative NLL increase of a text; 0.01 is one percent."""
SHARE_LIMIT = 0.01
"""Limit of what last words and minimal pairs lose; 0.01 is one percentage point. They are few, so that a loss counts
only if its whole 95% interval is below 0."""

Shares = tuple[float, float, Sequence[float] | None]
"""A share without and with a profile, and the interval of their difference."""


def side_effect_warnings(profile: Profile, limit: float = NLL_LIMIT) -> list[str]:
    """Return the texts whose NLL increases by more than ``limit``, largest increase first: ``["prose +2.3%"]``.

    Last words and minimal pairs that lose more than ``SHARE_LIMIT`` follow: ``["last words -2.1 points"]``. The list is
    empty too for a profile whose side effects were not measured: see :func:`is_measured`. A record that cannot be read
    is listed as not readable.
    """
    recorded = profile.provenance.side_effects if profile.provenance is not None else {}
    texts = {name: _change(record) for name, record in recorded.items() if not _is_of_another_kind(record)}
    others = {name: record for name, record in recorded.items() if _is_of_another_kind(record)}
    shares = dict(pair for name, record in others.items() for pair in _shares_in(name, record))
    unreadable = [f"{name}: not readable" for name, read in {**texts, **shares}.items() if read is None]
    return (
        texts_over_limit({name: change for name, change in texts.items() if change is not None}, limit)
        + shares_over_limit({name: one for name, one in shares.items() if one is not None})
        + unreadable
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


def shares_over_limit(shares: Mapping[str, Shares]) -> list[str]:
    """Return the entries of ``shares`` that lose more than ``SHARE_LIMIT``, the largest loss first."""
    lost = {
        name: before - after
        for name, (before, after, interval) in shares.items()
        if interval is not None and max(interval) < 0 and exceeds_limit(before - after, SHARE_LIMIT)
    }
    return [f"{name} -{100 * lost[name]:.1f} points" for name in sorted(lost, key=lambda name: -lost[name])]


def percent(change: float) -> str:
    """Format a relative NLL increase: ``+2.3%``, with two decimals if it is below 0.1%: ``+0.04%``."""
    return f"{100 * change:+.1f}%" if abs(change) >= 0.001 else f"{100 * change:+.2f}%"


def _change(record: object) -> float | None:
    if not isinstance(record, Mapping):
        return None
    before, after = _number(record.get("nll_before")), _number(record.get("nll_after"))
    return after / before - 1 if before is not None and after is not None and before > 0 else None


def _is_of_another_kind(record: object) -> bool:
    """Return whether ``record`` is of last words or minimal pairs: that of a text says no kind."""
    return isinstance(record, Mapping) and "kind" in record


def _shares_in(name: str, record: object) -> Iterator[tuple[str, Shares | None]]:
    """Yield the shares in ``record``, and in those of the phenomena in it; None where they cannot be read."""
    if not isinstance(record, Mapping):
        yield name, None
        return
    before, after = _number(record.get("correct_before")), _number(record.get("correct_after"))
    bounds = record.get("correct_interval")
    interval = [_number(bound) for bound in bounds] if isinstance(bounds, list) else []
    if before is None or after is None:
        yield name, None
    else:
        readable = [bound for bound in interval if bound is not None]
        yield name, (before, after, readable if len(readable) == 2 else None)
    phenomena = record.get("phenomena", {})
    if not isinstance(phenomena, Mapping):
        yield f"{name}: phenomena", None
        return
    for phenomenon, inner in phenomena.items():
        yield from _shares_in(f"{name}, {phenomenon}", inner)


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
