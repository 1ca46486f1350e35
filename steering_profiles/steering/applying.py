"""Steering of a plain transformers model inside a ``with`` block."""

from collections.abc import Iterator
from contextlib import contextmanager

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from steering_profiles.compatibility import require_compatible
from steering_profiles.composition import ProfileAtStrength, Steering
from steering_profiles.errors import ConditionError, GateError
from steering_profiles.models import FAMILIES, find_anatomy
from steering_profiles.models.identity import identify
from steering_profiles.schema import Profile
from steering_profiles.steering.conditional_passes import conditional_passes
from steering_profiles.steering.hooks import SteeringHandle
from steering_profiles.steering.reading import TextReader
from steering_profiles.steering.table import SteeringTable


@contextmanager
def applying(
    profile: Profile,
    model: PreTrainedModel,
    *,
    strength: float = 1.0,
    tokenizer: PreTrainedTokenizerBase | None = None,
    force: bool = False,
) -> Iterator[None]:
    """Steer all sequences of every forward pass of ``model`` inside this context, including those of ``generate``.

    The hooks are removed afterwards. Without a ``tokenizer`` only the architecture and the sizes of the model are
    compared with those of the profile's model. ``force`` applies the profile to another model if the shapes permit it.
    A profile with a condition needs the ``tokenizer``, which says what the text of a token is; its prompt is what the
    first forward pass computes.

    Raises:
        UnknownArchitecture: the model's architecture has no known anatomy.
        ProfileMismatch: the profile was made for another model.
        StrengthError: the strength is not a finite number in the allowed range.
        GateError: the profile is gated, which takes two passes per token; only the server and the evaluation make them.
        ConditionError: the profile has a condition, and there is no tokenizer or the tokens of a pass are not known.
        HookError: a part of the profile was not applied, or no forward pass was made.
    """
    steering = Steering((ProfileAtStrength(profile, strength),))
    anatomy = find_anatomy(model, FAMILIES)
    name, architecture = str(model.name_or_path or "this model"), type(model).__name__
    identity = identify(name, architecture, model.config.get_text_config(), tokenizer, anatomy)
    if tokenizer is None:  # the fingerprint includes the tokenizer
        identity = identity.model_copy(update={"fingerprint": profile.model.fingerprint})
    require_compatible(profile, identity, anatomy.refuses(profile), force=force)
    if steering.gate is not None:
        raise GateError(
            f"profile {profile.name!r} is gated, which takes two passes per token; serve it with steer serve"
        )
    if steering.conditions and tokenizer is None:
        raise ConditionError(
            f"profile {profile.name!r} takes effect where {', and where '.join(map(str, steering.conditions))}, which "
            "needs the text of tokens: give the tokenizer"
        )
    handle = SteeringHandle(anatomy, SteeringTable(anatomy.sizes, model.dtype))
    try:
        if steering.conditions and tokenizer is not None:
            with conditional_passes(model, handle, steering, TextReader(tokenizer)):
                yield
        else:
            with handle.applied([steering]):  # one row, which every sequence of a batch is given
                yield
    finally:
        handle.remove()
