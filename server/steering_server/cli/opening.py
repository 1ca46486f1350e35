"""What settings open: a backend (the model is loaded, profiles are checked, the engine is created), and the API."""

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from steering_profiles.source import require_possible
from steering_profiles.store import Catalogue
from steering_server.config import ServerSettings
from steering_server.limits import EngineLimits

if TYPE_CHECKING:
    from steering_profiles.models import LoadedModel
    from steering_server.access.gate import Gate
    from steering_server.api.settings import ApiSettings
    from steering_server.generation.backend import Backend
    from steering_server.generation.registry import ProfileRegistry


def api_settings(settings: ServerSettings, gate: "Gate") -> "ApiSettings":
    """Return what the API needs of ``settings``; ``gate`` is who may ask."""
    from steering_server.api.settings import ApiSettings

    return ApiSettings(
        gate=gate,
        docs=settings.docs,
        page=settings.page,
        cors_origins=settings.cors_origins,
        limits=settings.request_limits,
        connections=settings.connection_limits,
        field_policy=settings.field_policy,
    )


def open_backend(settings: ServerSettings) -> "Backend":
    """Load the model and the profiles that ``settings`` name, and return a backend that serves them.

    Raises:
        SteeringError: the model or a profile cannot be loaded, or a profile does not match the model.
        ConfigError: the engine cannot run the model within the limits of ``settings``, or there is no such default
            profile.
    """
    # Checks that need no model and no torch come first, because they take no time.
    catalogue = Catalogue.open(settings.profiles)
    require_possible(settings.model_source)
    limits = EngineLimits(
        max_num_seqs=settings.max_num_seqs,
        max_queue=settings.max_queue,
        max_length=settings.max_model_len,
        max_num_batched_tokens=settings.max_num_batched_tokens,
        max_num_batched_tokens_mixed=settings.max_num_batched_tokens_mixed,
        kv_cache_memory=settings.kv_cache_memory,
        prefix_cache=settings.prefix_cache,
        cuda_graphs=settings.cuda_graphs,
        batch_invariant=settings.batch_invariant,
    )
    if settings.engine == "vllm":
        from steering_server.engines.vllm.opening import open_vllm

        return open_vllm(
            settings.model_source,
            catalogue,
            limits,
            folder=settings.profiles,
            force=settings.force_profiles,
            default=settings.default_label,
            served_name=settings.served_name,
            arguments=settings.vllm_args or {},
        )

    from steering_server.engines.local.backend import LocalBackend

    # Loading runs in a thread of its own: its OpenMP threads end with it and do not slow down the engine's.
    with ThreadPoolExecutor(1) as loader:
        loaded, profiles = loader.submit(_load, settings, catalogue, limits).result()
    return LocalBackend(loaded, profiles, limits, served_name=settings.served_name)


def _load(
    settings: ServerSettings, catalogue: Catalogue, limits: EngineLimits
) -> "tuple[LoadedModel, ProfileRegistry]":
    from steering_profiles.models import load_meta_model, load_model
    from steering_server.engines.local.engine import capacity
    from steering_server.generation.registry import ProfileRegistry

    # Profiles and limits are checked against the meta-device model, before minutes of reading weights.
    meta = load_meta_model(settings.model_source)
    capacity(meta, limits)
    profiles = ProfileRegistry.open(
        catalogue,
        meta.identity,
        meta.anatomy.refuses,
        force=settings.force_profiles,
        folder=settings.profiles,
        default=settings.default_label,
    )
    return load_model(settings.model_source), profiles
