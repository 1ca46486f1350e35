"""``steer serve``: load the model, check the profiles and serve."""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Awaitable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from steering_server.cli.listening import allow_connections, listen, url_of
from steering_server.cli.model_options import CacheDir, DeviceMap, Dtype, MaxMemory, Model, model_settings
from steering_server.cli.serve_options import (
    ApiKeyHashes,
    ApiKeysFile,
    ClientTimeout,
    CorsOrigins,
    DatabaseUrl,
    Docs,
    Engine,
    HeaderTimeout,
    Insecure,
    KeepAlive,
    MaxBodyMemory,
    MaxBodySize,
    MaxCompletionTokens,
    MaxConnections,
    MaxHeaders,
    MaxHeaderSize,
    MaxPromptTokens,
    MaxRequestSequences,
    Page,
    RequestTimeout,
    VllmArgs,
)
from steering_server.cli.signals import Signalled, until_signalled
from steering_server.limits import RENAMED, EngineLimits

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from steering_server.config import ServerSettings
    from steering_server.generation.backend import Backend
    from steering_server.observability.observability import Observability

FORMER_OPTIONS = {f"--{old.replace('_', '-')}": f"--{new.replace('_', '-')}" for old, new in RENAMED.items()}


def serve(
    model: Model = None,
    engine: Engine = None,
    vllm_args: VllmArgs = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on. (default: 127.0.0.1)")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port to listen on. (default: 8000)")] = None,
    profiles: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of your own profiles, in addition to the shipped ones.")
    ] = None,
    profiles_poll: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="SECONDS",
            help="Time between looks at that folder for changes; 0 reads it at start and on SIGHUP only. (default: 1)",
        ),
    ] = None,
    default_profile: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[@STRENGTH]",
            help="Profile that is applied to requests that do not say what to apply; they reach the unsteered model as "
            "baseline.",
        ),
    ] = None,
    force_profiles: Annotated[
        bool | None,
        typer.Option(
            "--force-profiles", help="Apply profiles that were made for another model, where the shapes permit."
        ),
    ] = None,
    served_name: Annotated[
        str | None, typer.Option(help="Name of the model in requests. (default: the model's own)")
    ] = None,
    max_num_seqs: Annotated[
        int | None,
        typer.Option(
            min=1, help=f"Maximum number of sequences that run at the same time. (default: {EngineLimits.max_num_seqs})"
        ),
    ] = None,
    max_queue: Annotated[
        int | None,
        typer.Option(min=0, help=f"Maximum number of sequences that wait to run. (default: {EngineLimits.max_queue})"),
    ] = None,
    max_model_len: Annotated[
        int | None,
        typer.Option(
            min=2, help="Maximum tokens of prompt and completion together. (default: the model's context length)"
        ),
    ] = None,
    kv_cache_memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Memory of the KV cache, such as 4GiB. (default: 1GiB, or the size of one full sequence if larger)",
        ),
    ] = None,
    max_num_batched_tokens: Annotated[
        int | None,
        typer.Option(
            min=1, help=f"Maximum prompt tokens computed in one step. (default: {EngineLimits.max_num_batched_tokens})"
        ),
    ] = None,
    max_num_batched_tokens_mixed: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="The same limit for steps in which other sequences generate; a smaller one makes them wait less. "
            f"(default: {EngineLimits.max_num_batched_tokens_mixed})",
        ),
    ] = None,
    prefix_cache: Annotated[
        bool | None,
        typer.Option(
            "--prefix-cache/--no-prefix-cache",
            help="Whether sequences with the same prefix share its KV cache. (default: on)",
        ),
    ] = None,
    cuda_graphs: Annotated[
        bool | None,
        typer.Option(
            "--cuda-graphs/--no-cuda-graphs",
            help="Whether decoding steps are captured as CUDA graphs if the whole model is on one GPU. (default: on)",
        ),
    ] = None,
    batch_invariant: Annotated[
        str | None,
        typer.Option(
            metavar="auto|require|off",
            help="Whether answers must not depend on what else runs: where this machine's kernels allow it, or do not "
            "start without it, or off. (default: auto)",
        ),
    ] = None,
    shutdown_grace: Annotated[
        float | None,
        typer.Option(
            min=0, metavar="SECONDS", help="Time for running requests to finish after SIGTERM or SIGINT. (default: 30)"
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            metavar="key|open|off",
            help="Whether /metrics needs a key where other routes do, or never needs one, or does not exist. "
            "(default: key)",
        ),
    ] = None,
    database_url: DatabaseUrl = None,
    otlp_traces_endpoint: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Where to send OpenTelemetry traces by OTLP over HTTP. (default: that of OTEL_EXPORTER_OTLP_ENDPOINT)",
        ),
    ] = None,
    ignore_unknown_fields: Annotated[
        bool | None,
        typer.Option(
            "--ignore-unknown-fields",
            help="Leave unknown fields of requests out and name them in the answer, instead of refusing them.",
        ),
    ] = None,
    strict: Annotated[
        bool | None,
        typer.Option("--strict", help="Also refuse fields of requests that have no effect on this server."),
    ] = None,
    log_level: Annotated[
        str | None, typer.Option(help="Least severe messages to log: debug, info, warning or error. (default: info)")
    ] = None,
    insecure: Insecure = None,
    api_keys_file: ApiKeysFile = None,
    api_key_hashes: ApiKeyHashes = None,
    docs: Docs = None,
    page: Page = None,
    cors_origins: CorsOrigins = None,
    max_body_size: MaxBodySize = None,
    max_body_memory: MaxBodyMemory = None,
    max_prompt_tokens: MaxPromptTokens = None,
    max_completion_tokens: MaxCompletionTokens = None,
    max_request_sequences: MaxRequestSequences = None,
    request_timeout: RequestTimeout = None,
    max_connections: MaxConnections = None,
    max_headers: MaxHeaders = None,
    max_header_size: MaxHeaderSize = None,
    header_timeout: HeaderTimeout = None,
    client_timeout: ClientTimeout = None,
    keep_alive: KeepAlive = None,
    dtype: Dtype = None,
    device_map: DeviceMap = None,
    max_memory: MaxMemory = None,
    cache_dir: CacheDir = None,
) -> None:
    """Serve a model, steered and unsteered, over an OpenAI-compatible HTTP API.

    Without --model it serves the embedded default model and its shipped
    profiles. Every option can also be given as an environment variable:
    STEER_PORT=8123 is --port 8123.
    """
    # Until requests can run, SIGTERM exits at once. Imports take seconds, and process 1 of a container has no default
    # handler.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    from steering_server.config import load_settings
    from steering_server.logs import configure_logs

    options = {
        "engine": engine,
        "vllm_args": vllm_args,
        "host": host,
        "port": port,
        "profiles": profiles,
        "profiles_poll": profiles_poll,
        "default_profile": default_profile,
        "force_profiles": force_profiles,
        "served_name": served_name,
        "max_num_seqs": max_num_seqs,
        "max_queue": max_queue,
        "max_model_len": max_model_len,
        "kv_cache_memory": kv_cache_memory,
        "max_num_batched_tokens": max_num_batched_tokens,
        "max_num_batched_tokens_mixed": max_num_batched_tokens_mixed,
        "prefix_cache": prefix_cache,
        "cuda_graphs": cuda_graphs,
        "batch_invariant": batch_invariant,
        "shutdown_grace": shutdown_grace,
        "insecure": insecure,
        "api_keys_file": api_keys_file,
        "api_key_hashes": api_key_hashes,
        "docs": docs,
        "page": page,
        "cors_origins": cors_origins,
        "max_body_size": max_body_size,
        "max_body_memory": max_body_memory,
        "max_prompt_tokens": max_prompt_tokens,
        "max_completion_tokens": max_completion_tokens,
        "max_request_sequences": max_request_sequences,
        "request_timeout": request_timeout,
        "max_connections": max_connections,
        "max_headers": max_headers,
        "max_header_size": max_header_size,
        "header_timeout": header_timeout,
        "client_timeout": client_timeout,
        "keep_alive": keep_alive,
        "metrics": metrics,
        "database_url": database_url,
        "otlp_traces_endpoint": otlp_traces_endpoint,
        "ignore_unknown_fields": ignore_unknown_fields,
        "strict": strict,
        "log_level": log_level,
    }
    given = {name: value for name, value in options.items() if value is not None}
    settings = load_settings(**given, **model_settings(model, dtype, device_map, max_memory, cache_dir))
    configure_logs(settings.log_level)
    observability = _observability(settings)
    from steering_server.cli.experiments import open_experiments

    experiments = open_experiments(settings)
    listener = listen(settings.host, settings.port)  # before the model loads, so that a port in use is reported at once
    from steering_server.cli.access import open_gate

    gate = open_gate(settings, listener)
    allow_connections(settings.max_connections)

    from steering_server.api.lifecycle import live
    from steering_server.cli.opening import api_settings, open_backend

    served = api_settings(settings, gate)
    loading: Future[Backend] = Future()
    console = Console(stderr=True, highlight=False)
    with console.status("loading the model") as spinner:

        def ready(backend: "Backend") -> None:
            spinner.stop()
            _greet(console, backend, listener)

        def serving(signalled: Signalled) -> Awaitable[None]:
            # Started only once signals are handled: the earlier handler's exit would wait for this thread.
            _fulfil(loading, partial(open_backend, settings))
            return live(
                listener,
                loading,
                signalled.stop,
                reload=signalled.reload,
                grace=settings.shutdown_grace,
                ready=ready,
                settings=served,
                observability=observability,
                experiments=experiments,
                profiles_poll=settings.profiles_poll,
            )

        number = asyncio.run(until_signalled(serving))
    status = 0 if number == signal.SIGTERM else 128 + number
    if not loading.done():
        os._exit(status)  # sys.exit would wait for the thread that loads the model
    sys.exit(status)


def _observability(settings: "ServerSettings") -> "Observability":
    from steering_server.observability.endpoint import open_tracing
    from steering_server.observability.observability import Observability

    return Observability(settings.metrics, open_tracing(settings.otlp_traces_endpoint))


def _greet(console: Console, backend: "Backend", listener: "socket.socket") -> None:
    usable = [name for name, card in backend.profiles.items() if card.available]
    disabled = [name for name, card in backend.profiles.items() if not card.enabled]
    default = backend.profiles.snapshot.default
    url = escape(url_of(listener))
    console.print(f"[bold]{escape(backend.model.name)}[/] ({backend.model.dtype}) on {url}", soft_wrap=True)
    console.print(f"profiles: {escape(', '.join(usable)) or 'none for this model'}")
    if default.names:
        console.print(f"default profile: {escape(str(default))}")
    if disabled:
        console.print(f"[yellow]disabled:[/] {escape(', '.join(disabled))}")
    for name, card in backend.profiles.items():
        if card.entry.replaced is not None:
            console.print(f"{escape(name)}: your profile {escape(str(card.entry.path))} replaces the shipped one")
        if card.forced:
            console.print(f"[yellow]forced:[/] {escape(name)} was made for another model: {escape(card.reason or '')}")


def _fulfil(loading: "Future[Backend]", load: "Callable[[], Backend]") -> None:
    """Run ``load`` in a thread and set its result in ``loading``."""
    loading.set_running_or_notify_cancel()

    def run() -> None:
        try:
            loading.set_result(load())
        except BaseException as exc:  # handled by the thread that waits for the result
            loading.set_exception(exc)

    threading.Thread(target=run, name="steering-loader", daemon=True).start()
