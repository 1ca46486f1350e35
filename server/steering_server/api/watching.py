"""Watching the operator's folder of profiles while the server runs."""

import asyncio
from contextlib import suppress

import anyio
import structlog

from steering_server.generation.registry import ProfileRegistry

_log = structlog.get_logger("steering_server.profiles")


async def watch_profiles(profiles: ProfileRegistry, seconds: float, reload: asyncio.Event) -> None:
    """Read the folder again when ``reload`` is set, and look for changes every ``seconds`` (never, if 0), for ever."""
    while True:
        with suppress(TimeoutError):
            await asyncio.wait_for(reload.wait(), seconds or None)
        read = profiles.reload if reload.is_set() else profiles.poll
        reload.clear()
        try:
            await anyio.to_thread.run_sync(read)
        except Exception:  # any exception, so that later changes are still seen
            _log.exception("profiles_not_read")
