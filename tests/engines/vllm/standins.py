"""Stand-ins for vLLM's objects, for what the plugin does without a running vLLM."""

from types import SimpleNamespace
from typing import Any

from steering_profiles.models import LoadedModel
from steering_profiles.schema import Profile
from steering_profiles.store import Entry, content_hash
from steering_server.engines.vllm.plugin.served import ServedProfiles
from steering_server.generation.profiles import ProfileCard


def served(loaded: LoadedModel, *profiles: Profile, unusable: dict[str, str] | None = None) -> ServedProfiles:
    """The profiles of an engine that serves ``loaded``; ``unusable`` names those that cannot be applied, and why."""
    reasons = unusable or {}
    cards = {
        profile.name: ProfileCard(
            Entry(profile, None, content_hash(profile), shipped=False),
            usable=profile.name not in reasons,
            forced=False,
            reason=reasons.get(profile.name),
        )
        for profile in profiles
    }
    return ServedProfiles(cards, loaded.anatomy, None)


def vllm_config(model: str, additional_config: Any = None, **changes: Any) -> Any:
    """What the plugin reads of a ``VllmConfig``."""
    config = SimpleNamespace(
        additional_config={} if additional_config is None else additional_config,
        model_config=SimpleNamespace(
            model=model,
            revision=None,
            hf_overrides={},
            enable_sleep_mode=False,
            runner_type="generate",
            skip_tokenizer_init=False,
            tokenizer=model,
            enable_prompt_embeds=False,
        ),
        scheduler_config=SimpleNamespace(async_scheduling=False),
        use_v2_model_runner=False,
        parallel_config=SimpleNamespace(use_ubatching=False, prefill_context_parallel_size=1),
        cache_config=SimpleNamespace(kv_sharing_fast_prefill=False),
        kv_transfer_config=None,
    )
    for path, value in changes.items():
        owner: Any = config
        *parents, name = path.split("__")
        for parent in parents:
            owner = getattr(owner, parent)
        setattr(owner, name, value)
    return config
