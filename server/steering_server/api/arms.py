"""The arms of a request, given by the model's name, by ``steering`` or by ``arms``."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from steering_profiles.composition import UNSTEERED, ProfileAtStrength, Steering
from steering_profiles.effective import effective
from steering_profiles.errors import GateError
from steering_profiles.schema import BASELINE, strength_text
from steering_server.api.schemas.requests import ArmRequest, GenerationBody, shown
from steering_server.api.schemas.responses import Applied, AppliedArms, AppliedProfile, Effective
from steering_server.errors import NotFound, RequestError
from steering_server.generation.backend import Backend
from steering_server.generation.profiles import ProfileCard

SEPARATOR = "+"
"""Separator of the served name and profiles, as in ``model+a+b``."""


@dataclass(frozen=True)
class Arm:
    """One way to run the prompts: a label, a steering, and its description in the answer."""

    label: str
    steering: Steering
    applied: Applied


@dataclass(frozen=True)
class Arms:
    """The arms of a request, in order."""

    model: str
    """The model's name in the answer."""
    arms: tuple[Arm, ...]
    named: bool
    """Whether the request gave ``arms``, so that each choice names its arm."""

    @property
    def steering(self) -> Applied | AppliedArms:
        """The answer's ``steering`` field."""
        applied = tuple(arm.applied for arm in self.arms)
        return AppliedArms(arms=applied) if self.named else applied[0]

    @property
    def header(self) -> str:
        """The ``x-steering`` header."""
        return ", ".join(_header(arm.applied) for arm in self.arms)


def resolve_arms(body: GenerationBody, backend: Backend) -> Arms:
    """Return the arms that ``body`` asks for.

    Raises:
        NotFound: there is no such model or profile.
        RequestError: steering is given in more than one way, two arms have the same label, a profile cannot be applied,
            or profiles cannot be composed.
    """
    served = backend.model.name
    model = body.model or served
    in_name = _profiles_in_name(model, backend)
    asked = [name for name, given in (("model", in_name), ("steering", body.steering), ("arms", body.arms)) if given]
    if len(asked) > 1:
        raise RequestError(f"{asked[1]}: steering is given by {asked[0]} already; use one of them", param=asked[1])
    if body.arms:
        arms = tuple(_requested_arm(arm, f"arms.{i}", backend) for i, arm in enumerate(body.arms))
        _refuse_steered_baselines(arms)
        _refuse_equal_labels(arms)
        return Arms(model, arms, named=True)
    if body.steering:
        names, param, strength = _names(body.steering.profile), "steering.profile", body.steering.strength
    else:
        names, param, strength = in_name, "model", 1.0
    return Arms(model, (_arm(None, names, strength, param, backend),), named=False)


def _profiles_in_name(model: str, backend: Backend) -> tuple[str, ...]:
    served = backend.model.name
    if model == served:
        return ()
    prefix, names = model[: len(served) + 1], model[len(served) + 1 :]
    if prefix != served + SEPARATOR:
        raise NotFound(
            f"model: no model named {shown(model)}; this server has {served} and {served}{SEPARATOR}PROFILE",
            param="model",
            code="model_not_found",
        )
    return tuple(names.split(SEPARATOR))


def _requested_arm(arm: str | ArmRequest, param: str, backend: Backend) -> Arm:
    if isinstance(arm, ArmRequest):
        return _arm(arm.name, _names(arm.profile), arm.strength, f"{param}.profile", backend)
    names = () if arm == BASELINE else tuple(arm.split(SEPARATOR))
    return _arm(arm, names, 1.0, param, backend)


def _names(profile: str | Sequence[str]) -> tuple[str, ...]:
    return tuple(profile.split(SEPARATOR)) if isinstance(profile, str) else tuple(profile)


def _arm(label: str | None, names: tuple[str, ...], strength: float, param: str, backend: Backend) -> Arm:
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise RequestError(f"{param}: profile {shown(repeated)} is named twice", param=param)
    usable = [_usable(name, param, backend) for name in names]
    try:
        steering = Steering(
            tuple(ProfileAtStrength(card.entry.profile, strength, card.entry.content_hash) for card in usable)
        )
    except GateError as exc:
        raise RequestError(f"{param}: {exc}", param=param) from exc
    changed = effective(steering, backend.model.dtype)
    applied = tuple(
        AppliedProfile(profile=card.entry.profile.name, content_hash=card.entry.content_hash, strength=strength)
        for card in usable
    )
    joined = SEPARATOR.join(names)
    if label is None:
        label = joined if strength == 1 else f"{joined}@{strength_text(strength)}"
    return Arm(
        label=label or BASELINE,
        # An arm that changes nothing is computed as the baseline, so that rounding cannot make them differ.
        steering=UNSTEERED if changed.is_nothing else steering,
        applied=Applied(
            arm=label or BASELINE,
            profile=joined or None,
            content_hash=_joined_hash(applied),
            strength=strength if names else 0.0,
            profiles=applied,
            effective=Effective(
                heads=changed.heads,
                neurons=changed.neurons,
                own_attention=changed.self_only_attention,
                intercept_scale=changed.intercept_scale,
                gate=changed.gate,
            ),
            warnings=(*_force_warnings(usable), *changed.warnings),
        ),
    )


def _force_warnings(cards: Iterable[ProfileCard]) -> Iterator[str]:
    for card in cards:
        if card.forced:
            yield f"{card.entry.profile.name}: was made for another model and is forced: {card.reason}"


def _usable(name: str, param: str, backend: Backend) -> ProfileCard:
    cards = backend.profiles
    card = cards.get(name)
    if card is None:
        known = ", ".join(known for known, card in cards.items() if card.usable) or "none"
        code = "model_not_found" if param == "model" else "profile_not_found"
        raise NotFound(f"{param}: no profile named {shown(name)}; this server has: {known}", param=param, code=code)
    if not card.usable:
        raise RequestError(f"{param}: profile {name} does not fit the model: {card.reason}", param=param)
    refusal = backend.refuses(card.entry.profile)
    if refusal is not None:
        raise RequestError(f"{param}: profile {name} cannot be applied by this server: {refusal}", param=param)
    return card


def _joined_hash(applied: Sequence[AppliedProfile]) -> str | None:
    if len(applied) < 2:
        return applied[0].content_hash if applied else None
    joined = "+".join(profile.content_hash for profile in applied)
    return f"sha256:{hashlib.sha256(joined.encode()).hexdigest()}"


def _refuse_equal_labels(arms: Sequence[Arm]) -> None:
    labels = [arm.label for arm in arms]
    for index, label in enumerate(labels):
        if label in labels[:index]:
            raise RequestError(
                f"arms.{index}: label {shown(label)} is used twice; give one of them a name", param=f"arms.{index}"
            )


def _refuse_steered_baselines(arms: Sequence[Arm]) -> None:
    for index, arm in enumerate(arms):
        if arm.label.casefold() == BASELINE and arm.applied.strength != 0:
            raise RequestError(
                f"arms.{index}.name: is {shown(arm.label)}, which is reserved for the unsteered model",
                param=f"arms.{index}.name",
            )


def _header(applied: Applied) -> str:
    if not applied.profiles:
        return applied.arm
    profiles = "".join(
        f";profile={one.profile};hash={one.content_hash.removeprefix('sha256:')[:12]};strength={strength_text(one.strength)}"
        for one in applied.profiles
    )
    return applied.arm + profiles
