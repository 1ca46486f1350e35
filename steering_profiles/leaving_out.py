"""Profiles without some of their components, named as in reports: ``L11H2``, ``final_layer``. No torch."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from steering_profiles.composition import ProfileAtStrength
from steering_profiles.errors import ComponentError
from steering_profiles.final_layer_fields import INTERCEPT_TENSOR, FinalLayer, intercept_tensor
from steering_profiles.schema import Profile
from steering_profiles.store import content_hash

FINAL_LAYER = "final_layer"
"""Name of both parts of the final layer together."""

OWN_ATTENTION, INTERCEPT = f"{FINAL_LAYER}.own_attention", INTERCEPT_TENSOR

NAME_PATTERN = r"^(L(0|[1-9][0-9]{0,8})[HN](0|[1-9][0-9]{0,8})|final_layer(\.(own_attention|intercept))?)$"
"""Pattern of the names of components."""

_NAME = re.compile(NAME_PATTERN, re.ASCII)
_SHOWN = 8  # components of a profile in a message
_SHOWN_NAME = 40  # characters of an invalid name in a message


def component_names(profile: Profile) -> tuple[str, ...]:
    """Return the names of everything that ``profile`` changes: its heads, neurons and parts of the final layer.

    A component that is changed under several conditions has one name, which stands for all of its changes.
    """
    final_layers = [profile.final_layer, *(one.unconditional for one in profile.final_layers)]
    return (
        *dict.fromkeys(head.component for head in profile.heads),
        *dict.fromkeys(neuron.component for neuron in profile.neurons),
        *((OWN_ATTENTION,) if any(one.self_only_attention for one in final_layers) else ()),
        *((INTERCEPT,) if any(one.intercept_scale for one in final_layers) else ()),
    )


def leave_out(applied: Sequence[ProfileAtStrength], names: Iterable[str]) -> tuple[ProfileAtStrength, ...]:
    """Return profiles without the components ``names``, each left out of every profile that has it.

    What is left of a profile is a profile of its own: its content hash is that of its file without those components.

    Raises:
        ComponentError: a name is not that of a component, or none of the profiles has it; the message names it and
            what they have.
    """
    wanted = dict.fromkeys(names)
    if not wanted:
        return tuple(applied)
    known = [_known(_Key(one.key[0], frozenset(), one.profile)) for one in applied]
    for name in wanted:
        _check(name, [one.profile for one in applied], known)
    return tuple(_without(one, wanted.keys() & names_of) for one, names_of in zip(applied, known, strict=True))


@dataclass(frozen=True)
class _Key:
    """A profile and names of components, compared by the content hash: a profile can have very many components."""

    content_hash: str
    names: frozenset[str]
    profile: Profile = field(compare=False, repr=False)


@lru_cache(maxsize=64)
def _known(key: _Key) -> frozenset[str]:
    """Return the names by which components of a profile can be left out."""
    names = component_names(key.profile)
    return frozenset((*names, FINAL_LAYER) if {OWN_ATTENTION, INTERCEPT} & set(names) else names)


@lru_cache(maxsize=128)
def _reduced(key: _Key) -> tuple[Profile, str, tuple[str, ...]]:
    """Return the profile without ``key.names``, its content hash, and the names in the profile's order."""
    names = key.names | ({OWN_ATTENTION, INTERCEPT} if FINAL_LAYER in key.names else set())
    before, profile = key.profile.final_layer, key.profile
    share = 0.0 if OWN_ATTENTION in names else before.self_only_attention
    intercept = 0.0 if INTERCEPT in names else before.intercept_scale
    without = ({"self_only_attention": 0.0} if OWN_ATTENTION in names else {}) | (
        {"intercept_scale": 0.0} if INTERCEPT in names else {}
    )
    kept = [
        (left, profile.tensors.get(intercept_tensor(place)))
        for place, one in enumerate(profile.final_layers)
        if (left := one.model_copy(update=without)).unconditional != FinalLayer()
    ]
    tensors = dict(profile.tensors) if intercept else {}
    tensors |= {intercept_tensor(at): b for at, (one, b) in enumerate(kept) if one.intercept_scale and b is not None}
    reduced = profile.model_copy(
        update={
            "heads": tuple(scale for scale in profile.heads if scale.component not in names),
            "neurons": tuple(scale for scale in profile.neurons if scale.component not in names),
            "final_layer": FinalLayer(
                self_only_attention=share, intercept_scale=intercept, gate=before.gate if share or intercept else None
            ),
            "final_layers": tuple(one for one, _ in kept),
            "tensors": tensors,
        }
    )
    return reduced, content_hash(reduced), tuple(name for name in component_names(profile) if name in names)


def _without(one: ProfileAtStrength, names: set[str]) -> ProfileAtStrength:
    if not names:
        return one
    profile, hashed, left_out = _reduced(_Key(one.key[0], frozenset(names), one.profile))
    return replace(one, profile=profile, known_hash=hashed, left_out=left_out)


def _check(name: str, profiles: Sequence[Profile], known: Sequence[frozenset[str]]) -> None:
    if not _NAME.fullmatch(name):
        raise ComponentError(
            f"{_shown(name)} is not a component; allowed: a head such as L11H2, a neuron such as L3N120, "
            f"{FINAL_LAYER}, {OWN_ATTENTION} or {INTERCEPT}"
        )
    if not any(name in names for names in known):
        named = " and ".join(profile.name for profile in profiles)
        have = "does not change" if len(profiles) == 1 else "do not change"
        raise ComponentError(f"{named} {have} {name}; allowed: {_near(name, profiles)}")


def _near(name: str, profiles: Sequence[Profile]) -> str:
    """Return some of the components of ``profiles``, those of the layer that ``name`` is in if there are any."""
    all_names = list(dict.fromkeys(each for profile in profiles for each in component_names(profile)))
    beginning = re.split("[HN.]", name)[0]
    near = [each for each in all_names if re.split("[HN.]", each)[0] == beginning] or all_names
    shown = ", ".join(near[:_SHOWN])
    return shown if len(near) == len(all_names) <= _SHOWN else f"{shown} and others, {len(all_names)} in all"


def _shown(name: str) -> str:
    return ascii(name if len(name) <= _SHOWN_NAME else name[: _SHOWN_NAME - 3] + "...")
