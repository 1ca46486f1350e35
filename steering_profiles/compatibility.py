"""Does a profile fit a model? Compared by sizes and fingerprint, as data; no torch."""

from dataclasses import dataclass

from steering_profiles.errors import ProfileMismatch
from steering_profiles.schema import ModelIdentity, Profile

_SIZES = ("layers", "heads", "head_dim", "neurons", "hidden_size")


@dataclass(frozen=True)
class Compatibility:
    """How a profile fits a model: the reasons why not, and those among them that no force can lift."""

    differences: tuple[str, ...]
    """What differs between the profile's model and this one; empty when the profile was made for it."""
    obstacles: tuple[str, ...]
    """Components that this model does not have, or that cannot be scaled: with any, it cannot be applied."""

    @property
    def matches(self) -> bool:
        """Whether the profile was fitted on this very model."""
        return not self.differences and not self.obstacles


def check_compatibility(profile: Profile, model: ModelIdentity, refusal: str | None = None) -> Compatibility:
    """Compare the model that ``profile`` was fitted on with ``model``.

    ``refusal`` is the reason why the profile cannot be applied whatever the sizes, if there is one, see
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
    """Return how ``profile`` fits ``model``, or refuse it.

    ``force`` accepts a profile made for another model as long as every component it names exists in this one.

    Raises:
        ProfileMismatch: with all reasons in the message.
    """
    compatibility = check_compatibility(profile, model, refusal)
    refused = compatibility.obstacles if force else compatibility.differences + compatibility.obstacles
    if refused:
        hint = "" if force or compatibility.obstacles else " (it can be forced: the components it names exist here)"
        raise ProfileMismatch(
            f"profile {profile.name!r} was made for {profile.model.id}, not for {model.id}: {'; '.join(refused)}{hint}"
        )
    return compatibility
