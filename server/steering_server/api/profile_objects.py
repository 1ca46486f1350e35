"""Profiles as answers describe them."""

from steering_profiles.effective import described_conditions, self_only_attention_range
from steering_profiles.labels import SEPARATOR
from steering_profiles.side_effect_warnings import is_measured, side_effect_warnings
from steering_server.api.schemas.profile_answers import ProfileChange, ProfileObject
from steering_server.generation.profiles import ProfileCard
from steering_server.generation.registry import Change


def etag(content_hash: str) -> str:
    """Return the entity tag of a profile: its content hash in quotes."""
    return f'"{content_hash}"'


def steered_name(served: str, profile: str) -> str:
    """Return the name by which requests select ``profile`` of the model with the name ``served``."""
    return f"{served}{SEPARATOR}{profile}"


def profile_object(card: ProfileCard, served: str) -> ProfileObject:
    """Return the description of a profile on the server of the model with the name ``served``."""
    profile = card.entry.profile
    return ProfileObject(
        name=profile.name,
        description=profile.description,
        method=profile.method,
        summary=profile.summary,
        when=described_conditions(profile),
        content_hash=card.entry.content_hash,
        model=profile.model.id,
        model_name=steered_name(served, profile.name) if card.available else None,
        shipped=card.entry.shipped,
        storage=card.storage,
        enabled=card.enabled,
        usable=card.usable,
        forced=card.forced,
        reason=card.reason,
        own_attention_range=self_only_attention_range(profile),
        side_effects=dict(profile.provenance.side_effects) if profile.provenance and is_measured(profile) else None,
        has_report=card.entry.report is not None,
        flags=side_effect_warnings(profile),
    )


def profile_change(name: str, change: Change, served: str) -> ProfileChange:
    """Return the answer to a request that changed the profile ``name``."""
    before, after = change.before, change.after
    return ProfileChange(
        name=name,
        content_hash=after.entry.content_hash if after else None,
        replaced=before.entry.content_hash if before else None,
        survives_restart=change.survives_restart,
        profile=profile_object(after, served) if after else None,
    )
