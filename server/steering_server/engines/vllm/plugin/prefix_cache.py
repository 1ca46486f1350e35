"""The prefix cache's key: requests share keys and values only where their steerings leave them equal.

The salt is set in the engine core, so that it holds for every front end. vLLM hashes it into a request's first block,
and each further block's hash includes the one before.
"""

import hashlib
import json
from functools import wraps
from typing import Any

from steering_profiles.composition import Steering
from steering_profiles.models import Sizes
from steering_profiles.steering.sharing import kv_cache_key
from steering_server.engines.vllm.plugin.requests import requested_steering
from steering_server.engines.vllm.plugin.seams import mark, marked
from steering_server.engines.vllm.plugin.served import served_by
from steering_server.errors import RequestError


def salted(salt: str | None, steering: Steering, sizes: Sizes, prompt_length: int) -> str | None:
    """Return the salt of a request whose client gave ``salt``, which stays where no key or value is steered.

    The length of the prompt counts where a condition tests whether a token is in it.
    """
    key = kv_cache_key(steering, sizes, prompt_length)
    if not key:
        return salt
    return "steering:" + hashlib.sha256(json.dumps([salt, key]).encode()).hexdigest()


def install() -> None:
    """Set the salt of every request that enters an engine core of this process."""
    from vllm.v1.engine.core import EngineCore

    original = EngineCore.preprocess_add_request
    if marked(original):
        return

    @wraps(original)
    def preprocess_add_request(self: Any, request: Any) -> Any:
        served = served_by(self.vllm_config)
        params = request.sampling_params
        steering = requested_steering(params.extra_args if params is not None else None, served)
        if len(steering):
            if request.resumable:
                raise RequestError("steering: a request whose prompt grows cannot be steered", param="steering")
            sizes, prompt_length = served.known_anatomy.sizes, len(request.prompt_token_ids or ())
            request.cache_salt = salted(request.cache_salt, steering, sizes, prompt_length)
        return original(self, request)

    EngineCore.preprocess_add_request = mark(preprocess_add_request)
