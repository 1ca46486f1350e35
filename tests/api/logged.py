"""The log lines of requests."""

import time
from collections.abc import Callable
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
            while not lines and time.monotonic() < until:
                time.sleep(0.01)  # the line is written once the answer has been sent
    finally:
        configure_logs("error")
    (line,) = lines
    return dict(line)
