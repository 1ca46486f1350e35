"""Whether this vLLM can test conditions (``when``): they need the tokens of a step on the CPU before it is computed."""

import logging
from collections.abc import Iterable
from functools import wraps
from typing import Any

from steering_profiles.labels import MAX_PROFILES
from steering_profiles.schema import Profile
from steering_server.engines.vllm.plugin.seams import BATCH_FIELDS, mark, marked, require_fields
from steering_server.engines.vllm.plugin.served import ServedProfiles, served_by
from steering_server.errors import ConfigError

logger = logging.getLogger(__name__)


def combinations(profiles: Iterable[Profile]) -> int:
    """Return how many combinations of conditions can hold for one request that names some of ``profiles``."""
    conditions = [profile.conditions for profile in profiles]
    different = {condition for some in conditions for condition in some}
    most = sum(sorted(map(len, conditions), reverse=True)[:MAX_PROFILES])
    return 1 << min(len(different), most)


def require_tokens(runner: Any, served: ServedProfiles) -> None:
    """Check that the tokens of every step of a model runner are known before it, if a served profile needs them.

    Raises:
        ConfigError: vLLM schedules asynchronously, or its batch has no tokens where they are expected.
    """
    if not (conditional := _conditional(served)):
        return
    if runner.vllm_config.scheduler_config.async_scheduling:
        raise ConfigError(
            f"profiles with a condition ({conditional}) need the tokens of a step before it is computed, and with "
            "asynchronous scheduling they are on the GPU alone: start with --no-async-scheduling"
        )
    require_fields(runner.input_batch, BATCH_FIELDS)


def install() -> None:
    """Let engines that serve a profile with a condition schedule synchronously."""
    from vllm.engine.arg_utils import EngineArgs

    original = EngineArgs.create_engine_config
    if marked(original):
        return

    @wraps(original)
    def create_engine_config(self: Any, *args: Any, **kwargs: Any) -> Any:
        config = original(self, *args, **kwargs)
        _schedule_synchronously(config)
        return config

    EngineArgs.create_engine_config = mark(create_engine_config)


def _schedule_synchronously(vllm_config: Any) -> None:
    # The second model runner refuses conditions; so what does not concern them is not slowed down.
    if not vllm_config.scheduler_config.async_scheduling or vllm_config.use_v2_model_runner:
        return
    if conditional := _conditional(served_by(vllm_config)):
        vllm_config.scheduler_config.async_scheduling = False
        logger.warning(
            "asynchronous scheduling is off: profiles with a condition (%s) need the tokens of a step before it",
            conditional,
        )


def _conditional(served: ServedProfiles) -> str:
    return ", ".join(profile.name for profile in served.usable if profile.conditions)
