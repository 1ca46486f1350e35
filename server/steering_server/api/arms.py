"""The arms of a request, given by the model's name, by ``steering`` or by ``arms``."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from steering_profiles.composition import UNSTEERED, ProfileAtStrength, Steering
from steering_profiles.effective import effective
from steering_profiles.errors import ComponentError, GateError, LabelError
from steering_profiles.fields import strength_text
from steering_profiles.labels import AT, SEPARATOR, Label, parse_label
from steering_profiles.leaving_out import leave_out
from steering_profiles.schema import BASELINE
from steering_server.access.callers import Caller
from steering_server.api.exposing import Exposing
from steering_server.api.schemas.fields import shown
from steering_server.api.schemas.requests import MAX_ARM_NAME, ArmRequest, SamplingBody, SteeringRequest
from steering_server.api.schemas.responses import Applied, AppliedArms, AppliedProfile, Effective, ExposureObject
from steering_server.errors import DefaultUnavailable, Forbidden, NotFound, RequestError
from steering_server.generation.backend import Backend
from steering_server.generation.profiles import ProfileCard
from steering_server.generation.registry import Snapshot

_NAMED_IN_HEADER = 8
"""Components left out of a profile that the header ``x-steering`` names."""


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
    exposing: Exposing | None = None
    """What follows the request, if an experiment has assigned it to its arm."""

    @property
    def steering(self) -> Applied | AppliedArms:
        """The answer's ``steering`` field."""
        applied = tuple(arm.applied for arm in self.arms)
        return AppliedArms(arms=applied) if self.named else applied[0]

    @property
    def exposure(self) -> ExposureObject | None:
        """The answer's ``exposure`` field; None without an experiment."""
        return None if self.exposing is None else self.exposing.shown

    @property
    def header(self) -> str:
        """The ``x-steering`` header."""
        return ", ".join(_header(arm.applied) for arm in self.arms)


def resolve_arms(body: SamplingBody, backend: Backend, caller: Caller) -> Arms:
    """Return the arms that ``body`` asks for.

    Raises:
        NotFound: there is no such model or profile.
        Forbidden: ``caller`` may not use one of the profiles.
        RequestError: steering is given in more than one way, two arms have the same label, a profile cannot be applied,
            or profiles cannot be composed.
        DefaultUnavailable: ``body`` leaves it to the server's default profile, which cannot be applied.
    """
    resolver = _Resolver(backend, backend.profiles.snapshot, caller)
    model = body.model or backend.model.name
    in_name = resolver.label_in_name(model)
    asked = _asked(in_name, body)
    if len(asked) > 1:
        raise RequestError(f"{asked[1]}: steering is given by {asked[0]} already; use one of them", param=asked[1])
    if body.arms:
        arms = tuple(resolver.requested_arm(arm, f"arms.{i}") for i, arm in enumerate(body.arms))
        _refuse_steered_baselines(arms)
        _refuse_equal_labels(arms)
        return Arms(model, arms, named=True)
    if body.steering:
        return Arms(model, (resolver.described_arm(body.steering, "steering"),), named=False)
    return Arms(model, (resolver.named_arm(in_name),), named=False)


def steering_field(body: SamplingBody, backend: Backend, caller: Caller) -> str | None:
    """Return the field by which ``body`` says what to apply, also that it is nothing; None if it does not say.

    Raises:
        NotFound: there is no such model.
        RequestError: what its name says cannot be read.
    """
    in_name = _Resolver(backend, backend.profiles.snapshot, caller).label_in_name(body.model or backend.model.name)
    return next(iter(_asked(in_name, body)), None)


def resolve_arm(name: str, steering: str, backend: Backend, caller: Caller, param: str) -> Arm:
    """Return the arm called ``name`` that applies ``steering``, an entry of ``arms``; ``param`` is what gives it.

    Raises:
        NotFound: there is no such profile.
        Forbidden: ``caller`` may not use it.
        RequestError: it cannot be read or applied.
    """
    return _Resolver(backend, backend.profiles.snapshot, caller).arm(name, _parse(steering, param), param)


def resolve_model(model: str, backend: Backend, caller: Caller) -> Arm:
    """Return the arm that the name ``model`` alone selects.

    Raises:
        NotFound: there is no such model or profile.
        Forbidden: ``caller`` may not use one of the profiles.
        RequestError: a profile or the strength cannot be applied.
        DefaultUnavailable: it selects the server's default profile, which cannot be applied.
    """
    resolver = _Resolver(backend, backend.profiles.snapshot, caller)
    return resolver.named_arm(resolver.label_in_name(model))


def require_model(name: str | None, backend: Backend, caller: Caller) -> None:
    """Check that ``name``, if given, is a model that the requests of ``caller`` can name.

    Raises:
        NotFound, Forbidden, RequestError, DefaultUnavailable: see :func:`resolve_model`.
    """
    if name is not None:
        resolve_model(name, backend, caller)


@dataclass(frozen=True)
class _Resolver:
    """Resolves names of profiles by one snapshot, so that all arms of a request see the same versions."""

    backend: Backend
    profiles: Snapshot
    caller: Caller

    def label_in_name(self, model: str) -> Label | None:
        """Return what the name of a model says after the served name; None for the served name alone."""
        served = self.backend.model.name
        if model == served:
            return None
        prefix, label = model[: len(served) + 1], model[len(served) + 1 :]
        if prefix != served + SEPARATOR:
            raise NotFound(
                f"model: no model named {shown(model)}; this server has {served} and "
                f"{served}{SEPARATOR}PROFILE[{AT}STRENGTH]",
                param="model",
                code="model_not_found",
            )
        return _parse(label, "model")

    def named_arm(self, in_name: Label | None) -> Arm:
        """Return the arm that a model's name selects: what it says after the served name, or else the default."""
        if in_name is not None:
            return self.arm(str(in_name), in_name, "model")
        default = self.profiles.require_default()
        try:
            return self.arm(str(default), default, "model")
        except Forbidden:
            raise
        except RequestError as exc:  # such as profiles of a folder whose gates have become different
            raise DefaultUnavailable(f"the server's default profile {default} cannot be applied: {exc}") from exc

    def requested_arm(self, arm: str | ArmRequest, param: str) -> Arm:
        """Return the arm that an entry of ``arms`` asks for."""
        if isinstance(arm, str):
            return self.arm(arm, _parse(arm, param), param)
        return self.described_arm(arm, param, arm.name)

    def described_arm(self, given: SteeringRequest, param: str, name: str | None = None) -> Arm:
        """Return the arm of the object ``given`` in the field ``param``, called ``name`` if it is given."""
        label = _label_of(given, param)
        named = name or _name_without(label, given.without)
        return self.arm(named, label, f"{param}.profile", given.without, f"{param}.except")

    def arm(
        self, name: str, label: Label, param: str, left_out: Sequence[str] = (), left_out_param: str | None = None
    ) -> Arm:
        """Return the arm of ``label``, called ``name``, without the components ``left_out``.

        ``param`` is the field that gives the label, ``left_out_param`` the one that gives the components.
        """
        names, strength = label.names, label.strength
        repeated = next((name for name in names if names.count(name) > 1), None)
        if repeated is not None:
            raise RequestError(f"{param}: profile {shown(repeated)} is named twice", param=param)
        usable = [self._usable(name, param) for name in names]
        whole = [ProfileAtStrength(card.entry.profile, strength, card.entry.content_hash) for card in usable]
        try:
            steering = Steering(leave_out(whole, left_out))
        except ComponentError as exc:
            raise RequestError(f"{left_out_param}: {exc}", param=left_out_param) from exc
        except GateError as exc:
            raise RequestError(f"{param}: {exc}", param=param) from exc
        changed = effective(steering, self.backend.model.dtype)
        applied = tuple(
            AppliedProfile(profile=one.profile.name, content_hash=one.key[0], strength=strength, left_out=one.left_out)
            for one in steering
        )
        return Arm(
            label=name,
            # An arm that changes nothing is computed as the baseline, so that rounding cannot make them differ.
            steering=UNSTEERED if changed.is_nothing else steering,
            applied=Applied(
                arm=name,
                profile=SEPARATOR.join(names) or None,
                content_hash=_joined_hash(applied),
                strength=strength if names else 0.0,
                profiles=applied,
                effective=Effective(
                    heads=changed.heads,
                    neurons=changed.neurons,
                    own_attention=changed.self_only_attention,
                    intercept_scale=changed.intercept_scale,
                    gate=changed.gate,
                    when=changed.when,
                ),
                warnings=(*_force_warnings(usable), *changed.warnings),
            ),
        )

    def _usable(self, name: str, param: str) -> ProfileCard:
        card = self.profiles.get(name)
        if card is not None:
            self.caller.require_profile(name)
        if card is None or not card.enabled:
            usable = [known for known, card in self.profiles.items() if card.available and self.caller.may_use(known)]
            known = ", ".join(usable) or "none"
            if card is not None:
                raise NotFound(
                    f"{param}: profile {name} is disabled; this server has: {known}",
                    param=param,
                    code="profile_disabled",
                )
            code = "model_not_found" if param == "model" else "profile_not_found"
            raise NotFound(f"{param}: no profile named {shown(name)}; this server has: {known}", param=param, code=code)
        if not card.usable:
            raise RequestError(f"{param}: profile {name} does not fit the model: {card.reason}", param=param)
        refusal = self.backend.refuses(card.entry.profile)
        if refusal is not None:
            raise RequestError(f"{param}: profile {name} cannot be applied by this server: {refusal}", param=param)
        return card


def _asked(in_name: Label | None, body: SamplingBody) -> list[str]:
    """Return the fields by which a request says what to apply."""
    given = (("model", in_name), ("steering", body.steering), ("arms", body.arms))
    return [name for name, value in given if value]


def _label_of(given: SteeringRequest, param: str) -> Label:
    """Return the profiles and the strength of an object that has both as fields."""
    text = given.profile if isinstance(given.profile, str) else SEPARATOR.join(given.profile)
    label = _parse(text, f"{param}.profile")
    if not label.names:
        if given.strength not in (0, 1):
            raise RequestError(f"{param}.strength: {BASELINE} has no strength", param=f"{param}.strength")
        if given.without:
            raise RequestError(f"{param}.except: {BASELINE} has no components", param=f"{param}.except")
        return label
    if AT in text:
        raise RequestError(
            f"{param}.profile: is {shown(text)}; allowed are names, and a strength in {param}.strength",
            param=f"{param}.profile",
        )
    return Label(label.names, given.strength)


def _name_without(label: Label, left_out: Sequence[str]) -> str:
    """Return the name of an arm that has none of its own: what it applies, and what is left out if that is short."""
    names = list(dict.fromkeys(left_out))
    named = "-".join([str(label), *names])
    return named if len(named) <= MAX_ARM_NAME else f"{label}-{len(names)}-components"


def _parse(text: str, param: str) -> Label:
    try:
        return parse_label(text)
    except LabelError as exc:
        raise RequestError(f"{param}: {exc}", param=param) from exc


def _force_warnings(cards: Iterable[ProfileCard]) -> Iterator[str]:
    for card in cards:
        if card.forced:
            yield f"{card.entry.profile.name}: was made for another model and is forced: {card.reason}"


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
        f"{_header_except(one.left_out)}"
        for one in applied.profiles
    )
    return applied.arm + profiles


def _header_except(left_out: Sequence[str]) -> str:
    if not left_out:
        return ""
    more = f"+{len(left_out) - _NAMED_IN_HEADER}-more" if len(left_out) > _NAMED_IN_HEADER else ""
    return f";except={'+'.join(left_out[:_NAMED_IN_HEADER])}{more}"
