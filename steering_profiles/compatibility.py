"""Compatibility of a profile with a model, by sizes and fingerprint; no torch."""

from dataclasses import dataclass

from steering_profiles.errors import ProfileMismatch
from steering_profiles.schema import ModelIdentity, Profile

_SIZES = ("layers", "heads", "head_dim", "neurons", "hidden_size")


@dataclass(frozen=True)
class Compatibility:
    """Result of comparing the model that a profile was made for with another."""

    differences: tuple[str, ...]
    """Differences between the two models; empty if the profile was made for this one."""
    obstacles: tuple[str, ...]
    """Components of the profile that this model lacks or cannot scale; with any of these, force does not help."""

    @property
    def matches(self) -> bool:
        """Whether the profile was made for this model."""
        return not self.differences and not self.obstacles


def check_compatibility(profile: Profile, model: ModelIdentity, refusal: str | None = None) -> Compatibility:
    """Compare the model that ``profile`` was made for with ``model``.

    ``refusal`` is the reason why the profile cannot be applied, whatever the sizes, if there is one: see
    :meth:`.Anatomy.refuses`.
    """
    made_for = profile.model
    differences = [
        f"{field} is {getattr(model, field)} here, {getattr(made_for, field)} in the profile"
        for field in ("architecture", *_SIZES, "kv_heads", "vocab_size")
        if getattr(model, field) != getattr(made_for, field)
    ]
    if not differences and model.fingerprint != made_for.fingerprint:
        differences.append("the fingerprint of config and tokenizer differs")

    obstacles = [
        f"heads: layer {s.layer} head {s.head}, but the model has {model.layers} layers of {model.heads} heads"
        for s in profile.heads
        if s.layer >= model.layers or s.head >= model.heads
    ] + [
        f"neurons: layer {s.layer} neuron {s.neuron}, but the model has {model.layers} layers of {model.neurons}"
        for s in profile.neurons
        if s.layer >= model.layers or s.neuron >= model.neurons
    ]
    if refusal is not None:
        obstacles.append(refusal)
    if profile.tensors and made_for.hidden_size != model.hidden_size:
        obstacles.append(
            f"final_layer: the intercept has {made_for.hidden_size} entries, but the model's hidden size is "
            f"{model.hidden_size}"
        )
    return Compatibility(tuple(differences), tuple(obstacles))


def require_compatible(
    profile: Profile, model: ModelIdentity, refusal: str | None = None, *, force: bool = False
) -> Compatibility:
    """Return the compatibility of ``profile`` with ``model``, or refuse the profile.

    ``force`` accepts a profile made for another model if all of its components exist in this one.

    Raises:
        ProfileMismatch: the profile is refused; the message has all reasons.
    """
    compatibility = check_compatibility(profile, model, refusal)
    refused = compatibility.obstacles if force else compatibility.differences + compatibility.obstacles
    if refused:
        hint = (
            "" if force or compatibility.obstacles else " (it can be forced: all of its components exist in this model)"
        )
        raise ProfileMismatch(
            f"profile {profile.name!r} was made for {profile.model.id}, not for {model.id}: {'; '.join(refused)}{hint}"
        )
    return compatibility
