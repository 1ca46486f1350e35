"""The log lines of requests."""

import time
from collections.abc import Callable, Iterable, MutableMapping
from typing import Any

import httpx
import structlog

from steering_server.logs import configure_logs


def request_line(ask: Callable[[], httpx.Response]) -> dict[str, Any]:
    """Return the log line of the request that ``ask`` sends, found by the id in the answer's header.

    A line is written once its answer has been sent, so that of the request before may come now.
    """
    configure_logs("info")
    try:
        with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
            answered = ask().headers["x-request-id"]
            until = time.monotonic() + 10
            while not (found := _of_request(lines, answered)) and time.monotonic() < until:
                time.sleep(0.01)
    finally:
        configure_logs("error")
    (line,) = found
    return line


def _of_request(lines: Iterable[MutableMapping[str, Any]], request_id: str) -> list[dict[str, Any]]:
    return [dict(line) for line in lines if line["event"] == "request" and line["request_id"] == request_id]
