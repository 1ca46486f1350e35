"""CORS: which web pages may use the API from a browser."""

from collections.abc import Sequence
from typing import Any

EXPOSED_HEADERS = (
    "x-steering",
    "x-steering-ignored",
    "x-exposure-id",
    "x-experiment",
    "x-batch-invariant",
    "x-request-id",
    "retry-after",
    "warning",
    "etag",
    *(f"x-ratelimit-{what}-{of}" for of in ("requests", "tokens") for what in ("limit", "remaining", "reset")),
)
"""Headers of answers that scripts may read, besides those that they may always read."""
_PREFLIGHT_SECONDS = 600


def cors_options(origins: Sequence[str]) -> dict[str, Any]:
    """Return the options of Starlette's ``CORSMiddleware`` that let pages of ``origins`` use the API.

    Clients send headers of their own, such as OpenAI's ``x-stainless-os``, so any header is allowed. Keys are sent in
    ``Authorization``, never in cookies, so no credentials are.
    """
    return {
        "allow_origins": list(origins),
        "allow_methods": ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"],
        "allow_headers": ["*"],
        "expose_headers": list(EXPOSED_HEADERS),
        "allow_private_network": True,  # a page from the internet and a server on this machine
        "max_age": _PREFLIGHT_SECONDS,
    }
