"""The profiles that one vLLM engine serves, checked against its model. Each process of vLLM reads them for itself."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from steering_profiles.effective import described_conditions
from steering_profiles.errors import ModelError
from steering_profiles.models import Anatomy, ModelSource, load_meta_model
from steering_profiles.schema import Profile
from steering_profiles.store import Catalogue
from steering_server.engines.vllm.plugin.modes import refuses_conditions
from steering_server.engines.vllm.plugin.settings import PluginSettings, read_settings
from steering_server.errors import ConfigError
from steering_server.generation.profiles import ProfileCard, check_profile

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, eq=False)
class ServedProfiles:
    """All profiles by name, usable or not, and the model they were checked against."""

    cards: Mapping[str, ProfileCard]
    anatomy: Anatomy | None
    """Anatomy of the model on the meta device; None where the model is not known to this project."""
    unknown: str | None
    """The reason why the model is not known; no profile can be applied to it then."""
    tokenizer: "PreTrainedTokenizerBase | None" = None
    """The model's tokenizer, by which conditions read text; None where no usable profile has one."""

    @property
    def usable(self) -> tuple[Profile, ...]:
        """The profiles that requests can name."""
        return tuple(card.entry.profile for card in self.cards.values() if card.usable)

    @property
    def known_anatomy(self) -> Anatomy:
        """The model's anatomy.

        Raises:
            ConfigError: the model is not known.
        """
        if self.anatomy is None:
            raise ConfigError(f"this model cannot be steered: {self.unknown}")
        return self.anatomy


def served_by(vllm_config: Any) -> ServedProfiles:
    """Return the profiles of the engine with this ``VllmConfig``; they are read once in a process.

    Raises:
        ConfigError: a setting is invalid, or the model is not known although the operator gave profiles for it.
        ProfileError: a file of the operator's folder is no profile, or is for another model.
    """
    model = vllm_config.model_config
    changed = model.hf_overrides if isinstance(model.hf_overrides, Mapping) else "a function"
    return _read(
        str(model.model),
        model.revision,
        repr(changed) if changed else None,
        refuses_conditions(vllm_config),
        read_settings_of(vllm_config),
    )


def read_settings_of(vllm_config: Any) -> PluginSettings:
    """Return the plugin's settings in a ``VllmConfig``.

    Raises:
        ConfigError: a setting is unknown or invalid.
    """
    return read_settings(vllm_config.additional_config)


@lru_cache(maxsize=8)
def _read(
    model: str, revision: str | None, overrides: str | None, no_conditions: str | None, settings: PluginSettings
) -> ServedProfiles:
    catalogue = Catalogue.open(settings.profiles, shipped=settings.shipped)
    try:
        known = load_meta_model(ModelSource(model))
    except ModelError as exc:
        return _without_model(catalogue, str(exc), settings)
    if revision is not None and not settings.force:
        return _without_model(
            catalogue, f"revision is {revision!r}; steering needs the main one, or a folder", settings
        )
    if overrides is not None and not settings.force:
        return _without_model(catalogue, f"hf_overrides changes the model: {overrides}", settings)
    check = partial(check_profile, model=known.identity, refuses=lambda _: None, force=settings.force)
    cards = {name: _refused(check(catalogue[name]), known.anatomy, no_conditions) for name in catalogue}
    conditional = any(card.usable and card.entry.profile.conditions for card in cards.values())
    return ServedProfiles(MappingProxyType(cards), known.anatomy, None, known.tokenizer if conditional else None)


def _without_model(catalogue: Catalogue, reason: str, settings: PluginSettings) -> ServedProfiles:
    """Return the profiles of a model that is not known: none is usable."""
    if settings.profiles is not None:
        raise ConfigError(f"additional_config.steering.profiles is given, but this model cannot be steered: {reason}")
    cards = {name: ProfileCard(catalogue[name], usable=False, forced=False, reason=reason) for name in catalogue}
    return ServedProfiles(MappingProxyType(cards), None, reason)


def refusal(profile: Profile, anatomy: Anatomy, no_conditions: str | None) -> str | None:
    """Return the reason why vLLM cannot apply ``profile`` to a model of ``anatomy``, or None if it can.

    ``no_conditions`` is the reason why it cannot test conditions (:func:`.refuses_conditions`).
    """
    reason = anatomy.refuses(profile)
    if reason is None and profile.final_layer.gate is not None:
        reason = (
            f"final_layer.gate is {profile.final_layer.gate}: a gate needs two passes over the final layer, "
            "which vLLM does not make; the local engine of steer serve does"
        )
    if reason is None and no_conditions is not None and (when := described_conditions(profile)) is not None:
        reason = f"when ({when}): this vLLM cannot test a condition: {no_conditions}"
    return reason


def _refused(card: ProfileCard, anatomy: Anatomy, no_conditions: str | None) -> ProfileCard:
    """Return ``card``, not usable where vLLM cannot apply the profile."""
    reason = refusal(card.entry.profile, anatomy, no_conditions)
    if reason is None or not card.usable:
        return card
    return replace(card, usable=False, forced=False, reason=reason)
