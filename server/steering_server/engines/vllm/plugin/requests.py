"""What a request asks for, ``vllm_xargs`` over HTTP or ``SamplingParams.extra_args``, as a steering.

``steering`` is a label such as ``a+b@0.5``, or a list of names; ``strength`` is a number for all of them, or a list
with one for each; ``except`` is a list of components that are left out, such as ``L11H2``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from steering_profiles.composition import UNSTEERED, ProfileAtStrength, Steering
from steering_profiles.errors import ComponentError, LabelError, StrengthError
from steering_profiles.labels import AT, MAX_PROFILES, SEPARATOR, parse_label
from steering_profiles.leaving_out import leave_out
from steering_profiles.schema import BASELINE, check_strength
from steering_server.engines.vllm.plugin.served import ServedProfiles
from steering_server.errors import RequestError

STEERING, STRENGTH, EXCEPT = "steering", "strength", "except"

_SHOWN = 64  # characters of an invalid value in a message


def requested_steering(extra_args: Mapping[str, Any] | None, served: ServedProfiles) -> Steering:
    """Return the steering that a request asks for; profiles at strength 0 are left out.

    Raises:
        RequestError: it cannot be applied; the message names the field, the value and what is allowed.
    """
    if not extra_args or extra_args.get(STEERING) is None:
        for field in (STRENGTH, EXCEPT):
            if extra_args and extra_args.get(field) is not None:
                raise RequestError(f"{field} is given without {STEERING}", param=field)
        return UNSTEERED
    names, strength = _names(extra_args[STEERING])
    strengths = _strengths(extra_args.get(STRENGTH), names, strength)
    return _composed(dict(zip(names, strengths, strict=True)), _left_out(extra_args.get(EXCEPT)), served)


def _names(given: Any) -> tuple[tuple[str, ...], float | None]:
    """Return the names of profiles and the strength that stands with them, if one does."""
    if isinstance(given, str):
        try:
            label = parse_label(given)
        except LabelError as exc:
            raise RequestError(f"{STEERING}: {exc}", param=STEERING) from exc
        return _once(label.names), label.strength if AT in given else None
    if not isinstance(given, Sequence) or not all(isinstance(name, str) for name in given) or not given:
        raise RequestError(
            f"{STEERING} is {_shown(given)}; allowed: a label such as a+b@0.5, or a list of names of profiles",
            param=STEERING,
        )
    if len(given) > MAX_PROFILES:
        raise RequestError(
            f"{STEERING} names {len(given)} profiles; at most {MAX_PROFILES} are allowed", param=STEERING
        )
    for name in given:
        if AT in name or SEPARATOR in name or name == BASELINE:
            raise RequestError(
                f"{STEERING} has {_shown(name)} in a list; allowed there are names of profiles, "
                f"with the strengths in {STRENGTH}",
                param=STEERING,
            )
    return _once(tuple(given)), None


def _once(names: tuple[str, ...]) -> tuple[str, ...]:
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise RequestError(f"{STEERING}: profile {_shown(repeated)} is named twice", param=STEERING)
    return names


def _strengths(given: Any, names: Sequence[str], with_names: float | None) -> list[float]:
    """Return one strength per name."""
    if given is None:
        return [1.0 if with_names is None else with_names] * len(names)
    if with_names is not None:
        raise RequestError(f"{STRENGTH} is given twice: as a field, and after {AT} in {STEERING}", param=STRENGTH)
    several = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given] * len(names)
    if not names:
        if several or given not in (0, 1):
            raise RequestError(f"{STRENGTH}: {BASELINE} has no strength", param=STRENGTH)
        return []
    if len(several) != len(names):
        raise RequestError(
            f"{STRENGTH} has {len(several)} numbers for {len(names)} profiles; allowed: one for all, or one for each",
            param=STRENGTH,
        )
    return [_strength(one) for one in several]


def _strength(given: Any) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float):
        raise RequestError(f"{STRENGTH} is {_shown(given)}; allowed: a number", param=STRENGTH)
    try:
        return check_strength(float(given)) + 0.0  # -0 becomes 0
    except (StrengthError, OverflowError) as exc:
        raise RequestError(str(exc), param=STRENGTH) from exc


def _left_out(given: Any) -> tuple[str, ...]:
    """Return the names of components that are left out."""
    if given is None:
        return ()
    if isinstance(given, str) or not isinstance(given, Sequence) or not all(isinstance(name, str) for name in given):
        raise RequestError(
            f"{EXCEPT} is {_shown(given)}; allowed: a list of components, such as ['L11H2', 'final_layer']",
            param=EXCEPT,
        )
    return tuple(given)


def _composed(strengths: Mapping[str, float], left_out: Sequence[str], served: ServedProfiles) -> Steering:
    for name in strengths:
        _require_usable(name, served)
    # In the order of their names, since equal steerings must be computed equally.
    asked = [
        ProfileAtStrength(served.cards[name].entry.profile, strength, served.cards[name].entry.content_hash)
        for name, strength in sorted(strengths.items())
    ]
    if left_out and not asked:
        raise RequestError(f"{EXCEPT}: {BASELINE} has no components", param=EXCEPT)
    try:
        applied = leave_out(asked, left_out)
    except ComponentError as exc:
        raise RequestError(f"{EXCEPT}: {exc}", param=EXCEPT) from exc
    return Steering(tuple(one for one in applied if one.strength != 0)) if asked else UNSTEERED


def _require_usable(name: str, served: ServedProfiles) -> None:
    card = served.cards.get(name)
    if card is None:
        known = ", ".join(name for name, one in served.cards.items() if one.usable) or "none"
        raise RequestError(f"{STEERING}: no profile named {_shown(name)}; this server has: {known}", param=STEERING)
    if not card.usable:
        raise RequestError(f"{STEERING}: profile {name} cannot be applied: {card.reason}", param=STEERING)


def _shown(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
