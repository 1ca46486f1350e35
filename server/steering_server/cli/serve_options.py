"""The options of ``steer serve`` for access, limits and connections."""

from pathlib import Path
from typing import Annotated

import typer

from steering_server.limits import ConnectionLimits, RequestLimits

Engine = Annotated[
    str | None,
    typer.Option(
        metavar="local|vllm",
        help="What runs the model: this project's engine, or vLLM, which must be installed. (default: local)",
    ),
]
VllmArgs = Annotated[
    str | None,
    typer.Option(
        metavar="JSON",
        help='Further arguments of vLLM\'s engine, such as {"tensor_parallel_size": 2}. (default: none)',
    ),
]

_ACCESS, _LIMITS = "Access", "Limits of requests and connections"

ApiKeysFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="File of API keys, which steer keys makes and changes. With keys, every request needs one.",
        rich_help_panel=_ACCESS,
    ),
]
ApiKeyHashes = Annotated[
    str | None,
    typer.Option(
        metavar="NAME=SHA256,...",
        help="API keys by their SHA-256, or the content of a file of keys; NAME:admin=SHA256 for an admin.",
        rich_help_panel=_ACCESS,
    ),
]
Insecure = Annotated[
    bool | None,
    typer.Option(
        "--insecure",
        help="Serve without API keys on an address that others can reach.",
        rich_help_panel=_ACCESS,
    ),
]
Docs = Annotated[
    bool | None,
    typer.Option(
        "--docs/--no-docs",
        help="Whether /docs, /redoc and /openapi.json are served. (default: on)",
        rich_help_panel=_ACCESS,
    ),
]
Page = Annotated[
    bool | None,
    typer.Option(
        "--page/--no-page",
        help="Whether the page for browsers is served at /. (default: on)",
        rich_help_panel=_ACCESS,
    ),
]
CorsOrigins = Annotated[
    list[str] | None,
    typer.Option(
        metavar="ORIGIN",
        help="Origin of web pages that may use the API, such as https://example.org, or * for all. May be repeated. "
        "(default: none)",
        rich_help_panel=_ACCESS,
    ),
]
DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Database of experiments: sqlite:////FOLDER/FILE or postgresql://USER:PASSWORD@HOST/NAME. As a variable "
        "it is not seen in lists of processes. (default: a SQLite file in the user's state folder)",
    ),
]
MaxBodySize = Annotated[
    str | None,
    typer.Option(metavar="SIZE", help="Maximum size of a body. (default: 16MiB)", rich_help_panel=_LIMITS),
]
MaxBodyMemory = Annotated[
    str | None,
    typer.Option(metavar="SIZE", help="Maximum size of all bodies at once. (default: 256MiB)", rich_help_panel=_LIMITS),
]
MaxPromptTokens = Annotated[
    int | None,
    typer.Option(min=1, help="Maximum tokens of a prompt. (default: what the context holds)", rich_help_panel=_LIMITS),
]
MaxCompletionTokens = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Maximum value of max_tokens, and its value in chats without one. (default: what the context holds)",
        rich_help_panel=_LIMITS,
    ),
]
MaxRequestSequences = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Maximum number of sequences of a request: prompts times arms times n. "
        f"(default: {RequestLimits.max_request_sequences})",
        rich_help_panel=_LIMITS,
    ),
]
RequestTimeout = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        help=f"Time after which a request is ended with an error. (default: {RequestLimits.request_timeout:g})",
        rich_help_panel=_LIMITS,
    ),
]
MaxConnections = Annotated[
    int | None,
    typer.Option(
        min=1,
        help=f"Maximum number of connections at once. (default: {ConnectionLimits.max_connections})",
        rich_help_panel=_LIMITS,
    ),
]
MaxHeaders = Annotated[
    int | None,
    typer.Option(
        min=8,
        help=f"Maximum number of headers of a request. (default: {ConnectionLimits.max_headers})",
        rich_help_panel=_LIMITS,
    ),
]
MaxHeaderSize = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Maximum size of a request's headers together. (default: 32KiB)",
        rich_help_panel=_LIMITS,
    ),
]
HeaderTimeout = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        help=f"Time that a client has to send the headers. (default: {ConnectionLimits.header_timeout:g})",
        rich_help_panel=_LIMITS,
    ),
]
ClientTimeout = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        help="Time that a client has to send a body, and to go on reading an answer. "
        f"(default: {ConnectionLimits.client_timeout:g})",
        rich_help_panel=_LIMITS,
    ),
]
KeepAlive = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        help="Time after which an idle connection is closed; must be longer than a proxy in front keeps it. "
        f"(default: {ConnectionLimits.keep_alive:g})",
        rich_help_panel=_LIMITS,
    ),
]
