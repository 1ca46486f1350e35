"""Opening a backend from settings: load the model, check the profiles, create the engine."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from steering_profiles.source import require_possible
from steering_profiles.store import Catalogue
from steering_server.config import ServerSettings

if TYPE_CHECKING:
    from steering_profiles.models import LoadedModel
    from steering_server.engines.local.backend import LocalBackend
    from steering_server.generation.profiles import ProfileCard
    from steering_server.limits import EngineLimits


def open_backend(settings: ServerSettings) -> "LocalBackend":
    """Load the model and the profiles that ``settings`` name, and return a backend that serves them.

    Raises:
        SteeringError: the model or a profile cannot be loaded, or a profile does not match the model.
        ConfigError: the engine cannot run the model within the limits of ``settings``.
    """
    # Checks that need no model and no torch come first, because they take no time.
    catalogue = Catalogue.open(settings.profiles)
    require_possible(settings.model_source)

    from steering_server.engines.local.backend import LocalBackend
    from steering_server.limits import EngineLimits

    limits = EngineLimits(
        max_num_seqs=settings.max_num_seqs,
        max_queue=settings.max_queue,
        max_length=settings.max_model_len,
        max_num_batched_tokens=settings.max_num_batched_tokens,
        max_num_batched_tokens_mixed=settings.max_num_batched_tokens_mixed,
        kv_cache_memory=settings.kv_cache_memory,
        prefix_cache=settings.prefix_cache,
        batch_invariant=settings.batch_invariant,
    )
    # Loading runs in a thread of its own: its OpenMP threads end with it and do not slow down the engine's.
    with ThreadPoolExecutor(1) as loader:
        loaded, profiles = loader.submit(_load, settings, catalogue, limits).result()
    return LocalBackend(loaded, profiles, limits, served_name=settings.served_name)


def _load(
    settings: ServerSettings, catalogue: Catalogue, limits: "EngineLimits"
) -> "tuple[LoadedModel, Mapping[str, ProfileCard]]":
    from steering_profiles.models import load_meta_model, load_model
    from steering_server.engines.local.engine import check
    from steering_server.generation.profiles import check_profiles

    # Profiles and limits are checked against the meta-device model, before minutes of reading weights.
    meta = load_meta_model(settings.model_source)
    check(meta, limits)
    profiles = check_profiles(catalogue, meta.identity, meta.anatomy.refuses, force=settings.force_profiles)
    return load_model(settings.model_source), profiles
