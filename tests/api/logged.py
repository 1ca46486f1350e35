"""The log lines of requests."""

import time
from collections.abc import Callable, Iterable, MutableMapping
from typing import Any

import structlog

from steering_server.logs import configure_logs


def request_line(ask: Callable[[], object]) -> dict[str, Any]:
    """Return the log line of the one request that ``ask`` sends."""
    configure_logs("info")
    try:
        with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
            ask()
            until = time.monotonic() + 10
            while not _of_requests(lines) and time.monotonic() < until:
                time.sleep(0.01)  # the line is written once the answer has been sent
    finally:
        configure_logs("error")
    (line,) = _of_requests(lines)
    return line


def _of_requests(lines: Iterable[MutableMapping[str, Any]]) -> list[dict[str, Any]]:
    """Those that say that a request was answered; a changed file of keys has a line too."""
    return [dict(line) for line in lines if line["event"] == "request"]
