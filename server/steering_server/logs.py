"""Logging: one line per event on standard error, formatted for a terminal and as JSON elsewhere."""

import logging
import sys

import structlog


def configure_logs(level: str) -> None:
    """Log events of ``level`` (debug, info, warning, error) and above; they include structlog's context variables."""
    numeric = logging.getLevelNamesMapping()[level.upper()]
    renderer = structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(numeric),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),  # of now: a program may replace it
    )
    logging.basicConfig(level=max(numeric, logging.WARNING), stream=sys.stderr)
    # It warns of every malformed body; the client that sent it is told.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
