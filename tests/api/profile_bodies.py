"""Profiles as bodies of requests."""

import json
from typing import Any

import httpx
from safetensors.numpy import save

from steering_profiles.schema import Profile

JSON = {"content-type": "application/json"}


def as_json(profile: Profile, **changes: Any) -> bytes:
    """The JSON of a profile, changed."""
    return json.dumps(json.loads(profile.model_dump_json()) | changes).encode()


def put(http: httpx.Client, profile: Profile, **headers: str) -> httpx.Response:
    """Put a profile, with its tensors if it has any; ``if_match`` is the header ``If-Match``."""
    return _send(http, "PUT", f"/v1/profiles/{profile.name}", profile, headers)


def validate(http: httpx.Client, profile: Profile, **headers: str) -> httpx.Response:
    """Ask what a ``put`` would do."""
    return _send(http, "POST", f"/v1/profiles/{profile.name}/validate", profile, headers)


def _send(http: httpx.Client, method: str, path: str, profile: Profile, headers: dict[str, str]) -> httpx.Response:
    conditions = {name.replace("_", "-"): value for name, value in headers.items()}
    if not profile.tensors:
        return http.request(method, path, content=as_json(profile), headers=conditions | JSON)
    files = {"profile": as_json(profile), "tensors": save(dict(profile.tensors))}
    return http.request(method, path, files=files, headers=conditions)
