"""Every setting has an effect, as a variable and as a flag: it changes what ``steer serve`` passes on."""

import asyncio
import signal
import socket
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import torch
import typer

from steering_profiles.models import ModelSource
from steering_server.api import lifecycle
from steering_server.api.settings import ApiSettings
from steering_server.cli import access, app, opening
from steering_server.config import PREFIX, ServerSettings, load_settings
from steering_server.errors import ConfigError
from steering_server.experiments.live import Experiments
from steering_server.limits import RENAMED, EngineLimits
from steering_server.observability.observability import Observability
from tests.builders import build_model

VALUES = {
    "engine": "vllm",
    "vllm_args": '{"tensor_parallel_size": 2}',
    "model": "someone/own-model",
    "served_name": "own",
    "dtype": "float16",
    "device_map": '{"": "cpu"}',
    "max_memory": "cpu=20GiB,0=10GiB",
    "cache_dir": "/cache/own",
    "profiles": "/profiles/own",
    "profiles_poll": "0.5",
    "default_profile": "own@0.5",
    "force_profiles": "true",
    "host": "127.0.0.2",
    "port": "a free one",
    "insecure": "true",
    "api_keys_file": "a file of keys",
    "api_key_hashes": f"ci={'0' * 64}",
    "docs": "false",
    "page": "false",
    "cors_origins": "https://example.org",
    "max_body_size": "1MiB",
    "max_body_memory": "500MiB",
    "max_prompt_tokens": "55",
    "max_completion_tokens": "44",
    "max_request_sequences": "22",
    "request_timeout": "12.5",
    "max_connections": "77",
    "max_headers": "66",
    "max_header_size": "8KiB",
    "header_timeout": "3.5",
    "client_timeout": "4.5",
    "max_num_seqs": "3",
    "max_queue": "7",
    "max_model_len": "99",
    "max_num_batched_tokens": "33",
    "max_num_batched_tokens_mixed": "11",
    "kv_cache_memory": "3GiB",
    "prefix_cache": "false",
    "cuda_graphs": "false",
    "batch_invariant": "off",
    "shutdown_grace": "2.5",
    "keep_alive": "90.5",
    "metrics": "open",
    "database_url": "sqlite:////state/own.sqlite",
    "otlp_traces_endpoint": "http://127.0.0.1:9/own",
    "ignore_unknown_fields": "true",
    "strict": "true",
    "log_level": "warning",
}
"""A value of each setting that is not its default."""

FLAGS = {
    "force_profiles": ["--force-profiles"],
    "insecure": ["--insecure"],
    "docs": ["--no-docs"],
    "page": ["--no-page"],
    "prefix_cache": ["--no-prefix-cache"],
    "ignore_unknown_fields": ["--ignore-unknown-fields"],
    "strict": ["--strict"],
    "cuda_graphs": ["--no-cuda-graphs"],
    "max_memory": ["--max-memory", "cpu=20GiB", "--max-memory", "0=10GiB"],
}
"""Command-line words of the settings whose flag is not ``--name value``."""

Start = Callable[..., dict[str, Any]]


class Enough(Exception):
    """Raised where the server would start to serve."""


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Start:
    """Run ``steer serve`` with flags up to the point where it would load the model; return what it passed on."""
    seen: dict[str, Any] = {}

    async def live(
        listener: socket.socket,
        loading: Future[Any],
        stop: asyncio.Event,
        *,
        ready: Any,
        grace: float,
        settings: ApiSettings,
        profiles_poll: float,
        reload: Any,
        observability: Observability,
        experiments: Experiments,
    ):
        await asyncio.wrap_future(loading)
        seen.update(address=listener.getsockname(), grace=grace, profiles_poll=profiles_poll, settings=settings)
        tracing = observability.tracing
        seen.update(database=experiments.where)
        seen.update(metrics=observability.access, traces=tracing and tracing.endpoint)
        await observability.close()
        listener.close()
        raise Enough

    def check(catalogue: dict[str, Any], model: Any, refuses: Any, **others: Any) -> dict[str, Any]:
        seen.update(force=others["force"], default=others["default"])
        return {}

    def backend(loaded: None, profiles: dict[str, Any], limits: EngineLimits, **others: Any) -> None:
        seen.update(engine="local", arguments={}, limits=limits, **others)

    def vllm(
        source: ModelSource,
        catalogue: None,
        limits: EngineLimits,
        *,
        folder: Path | None,
        force: bool,
        default: str | None,
        served_name: str | None,
        arguments: dict[str, Any],
    ) -> None:
        seen.update(engine="vllm", source=source, limits=limits, served_name=served_name, arguments=arguments)
        seen.update(force=force, default=default)

    def read(name: str) -> Callable[[object], Any]:
        return lambda value: seen.update({name: value}) or {}

    def gate(settings: ServerSettings, listener: socket.socket) -> tuple[object, ...]:
        return settings.insecure, settings.api_keys_file, settings.api_key_hashes

    monkeypatch.setattr(access, "open_gate", gate)
    monkeypatch.setattr(lifecycle, "live", live)
    monkeypatch.setattr("steering_server.engines.local.backend.LocalBackend", backend)
    monkeypatch.setattr("steering_server.engines.vllm.opening.open_vllm", vllm)
    monkeypatch.setattr("steering_server.generation.registry.ProfileRegistry.open", check)
    monkeypatch.setattr(
        "steering_profiles.models.load_meta_model", lambda source: build_model("llama", dtype=torch.float32)
    )
    monkeypatch.setattr("steering_profiles.models.load_model", read("source"))
    monkeypatch.setattr(opening.Catalogue, "open", read("profiles"))
    monkeypatch.setattr("steering_server.logs.configure_logs", read("log_level"))
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # the handlers of the process that tests

    def run(*flags: str) -> dict[str, Any]:
        seen.clear()
        with pytest.raises(Enough):
            typer.main.get_command(app).main(["serve", *flags], standalone_mode=False)
        return dict(seen)

    return run


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def test_these_tests_cover_every_setting():
    assert set(VALUES) == set(ServerSettings.model_fields)


@pytest.mark.parametrize("name", VALUES)
def test_a_variable_has_the_same_effect_as_its_flag(
    name: str, start: Start, free_port: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("STEER_PORT", "0" if name == "port" else str(free_port))
    if name == "max_memory":
        monkeypatch.setenv("STEER_DEVICE_MAP", "auto")  # which alone looks at it
    if name == "vllm_args":
        monkeypatch.setenv("STEER_ENGINE", "vllm")
    value = str(free_port) if name == "port" else VALUES[name]
    default = comparable(start())
    by_flag = comparable(start(*FLAGS.get(name, [f"--{name.replace('_', '-')}", value])))
    monkeypatch.setenv(PREFIX + name.upper(), value)
    by_variable = comparable(start())
    assert by_variable == by_flag != default
    assert len([key for key in default if by_variable[key] != default[key]]) == 1


def comparable(seen: dict[str, Any]) -> dict[str, Any]:
    """Return the same with dataclasses replaced by their fields."""
    source: ModelSource = seen.pop("source")
    limits: EngineLimits = seen.pop("limits")
    settings: ApiSettings = seen.pop("settings")
    served = vars(settings) | vars(settings.limits) | vars(settings.connections)
    del served["limits"], served["connections"]
    return seen | vars(source) | vars(limits) | served


def test_arguments_of_vllm_are_refused_by_the_local_engine(start: Start, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("STEER_PORT", "0")
    with pytest.raises(ConfigError, match="vllm_args is given, but engine is local; use it with engine vllm"):
        start("--vllm-args", "{}")


def test_memory_for_less_than_one_body_is_refused():
    with pytest.raises(ConfigError, match="max body memory is 1048576 bytes; it must hold a body of max body size"):
        _ = load_settings(max_body_memory="1MiB").request_limits
    assert load_settings(max_body_size="1GiB").request_limits.body_memory == 2**30


def test_two_policies_for_fields_of_requests_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("STEER_STRICT", "true")
    monkeypatch.setenv("STEER_IGNORE_UNKNOWN_FIELDS", "true")
    with pytest.raises(ConfigError, match="strict and ignore_unknown_fields exclude each other"):
        _ = load_settings().field_policy


def test_idle_connections_are_kept_longer_than_by_proxies_by_default(start: Start, monkeypatch: pytest.MonkeyPatch):
    """nginx and cloud load balancers keep them for 60 s; a server that closes them sooner makes a proxy answer 502."""
    monkeypatch.setenv("STEER_PORT", "0")
    assert start()["settings"].connections.keep_alive == 75


def test_a_flag_wins_over_its_variable(start: Start, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("STEER_PORT", "0")
    monkeypatch.setenv("STEER_MAX_NUM_SEQS", "3")
    assert start("--max-num-seqs", "5")["limits"].max_num_seqs == 5


FORMER = {"max_batch": "3", "step_tokens": "33", "step_tokens_beside": "11", "kv_memory": "3GiB"}
"""A value for each setting of version 0.1 that has been renamed."""


def test_these_tests_cover_every_renamed_setting():
    assert FORMER.keys() == RENAMED.keys()


@pytest.mark.parametrize("name", FORMER)
def test_the_former_name_of_a_setting_is_accepted_as_a_flag_and_as_a_variable(
    name: str, start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setenv("STEER_PORT", "0")
    new, old_flag, new_flag = RENAMED[name], *(f"--{n.replace('_', '-')}" for n in (name, RENAMED[name]))
    expected = start(new_flag, FORMER[name])["limits"]
    assert not caplog.messages
    assert start(old_flag, FORMER[name])["limits"] == start(f"{old_flag}={FORMER[name]}")["limits"] == expected
    assert caplog.messages == [f"{old_flag} is deprecated; use {new_flag}"] * 2
    caplog.clear()
    monkeypatch.setenv(PREFIX + name.upper(), FORMER[name])
    assert start()["limits"] == expected
    assert caplog.messages == [f"{PREFIX}{name.upper()} is deprecated; use {PREFIX}{new.upper()}"]


def test_the_present_name_of_a_variable_wins_over_its_former_one(start: Start, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("STEER_PORT", "0")
    monkeypatch.setenv("STEER_MAX_BATCH", "3")
    monkeypatch.setenv("STEER_MAX_NUM_SEQS", "5")
    assert start()["limits"].max_num_seqs == 5
