"""A server with API keys."""

from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import torch

from steering_profiles.store import Catalogue, save_profile
from steering_server.access.gate import Gate
from steering_server.access.key_files import added, edit_key_file
from steering_server.access.keyring import Keyring
from steering_server.access.keys import ApiKey, generate_secret, hash_secret
from steering_server.api.settings import ApiSettings
from steering_server.experiments.live import Experiments
from steering_server.generation.backend import Backend
from steering_server.generation.requests import BatchOutput
from steering_server.limits import EngineLimits, MetricsAccess
from steering_server.observability.observability import Observability
from tests.builders import build_model, profiles_for
from tests.serving import build_backend, living, wait_until_ready


@dataclass(frozen=True)
class Keyed:
    """A running server with a file of keys."""

    url: str
    keys: Path
    generated: list[int]
    """Number of sequences in every call that reached the model."""

    def add(self, name: str, **fields: Any) -> dict[str, str]:
        """Make a key; return the header that gives it."""
        secret = generate_secret()
        key = ApiKey(name=name, sha256=hash_secret(secret.encode()), **fields)
        edit_key_file(self.keys, lambda known: added(known, key))
        return {"authorization": f"Bearer {secret}"}

    def complete(self, headers: dict[str, str], **fields: Any) -> httpx.Response:
        """Ask for a completion."""
        body = {"prompt": "abc", "max_tokens": 2, "temperature": 0} | fields
        return httpx.post(f"{self.url}/v1/completions", json=body, headers=headers, timeout=60)


@contextmanager
def keyed(
    folder: Path,
    settings: ApiSettings | None = None,
    limits: EngineLimits | None = None,
    *,
    layers: int = 3,
    metrics: MetricsAccess = "key",
    default: str | None = None,
    experiments: Experiments | None = None,
) -> Iterator[Keyed]:
    """Serve a small model and its profiles with a file of keys, which is empty at first."""
    model = build_model("llama", dtype=torch.float32, layers=layers)
    keys = folder / "keys.json"
    edit_key_file(keys, lambda known: known)
    for profile in profiles_for(model):
        save_profile(profile, folder / "profiles")
    backend = build_backend(model, Catalogue.open(folder / "profiles", shipped=False), limits, default=default)
    generated: list[int] = []
    generate = backend.generate

    def counted(requests: Any, client: str | None = None, *, admitted: bool = False) -> BatchOutput:
        generated.append(len(requests))
        return generate(requests, client, admitted=admitted)

    backend.generate = counted  # type: ignore[method-assign]
    loading: Future[Backend] = Future()
    loading.set_result(backend)
    settings = replace(settings or ApiSettings(), gate=Gate(Keyring(keys), admin_without_key=False))
    observability = Observability(metrics)
    with living(loading, settings=settings, observability=observability, experiments=experiments) as (url, _):
        wait_until_ready(url)
        yield Keyed(url, keys, generated)
