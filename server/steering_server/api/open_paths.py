"""The paths that need no API key."""

from steering_server.page.files import page_files

PROBES = frozenset({"/health", "/ready"})
METRICS = "/metrics"


def open_paths(*, metrics: bool, page: bool) -> frozenset[str]:
    """Return the paths that need no API key: the probes, and the metrics and the page's files where these are open."""
    return PROBES | ({METRICS} if metrics else set()) | (page_files().keys() if page else set())
