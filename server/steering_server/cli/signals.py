"""Signals of a server: SIGTERM and SIGINT stop it, SIGHUP makes it read its profiles again."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

_TERMINAL = "/dev/tty"


@dataclass(frozen=True)
class Signalled:
    """Requests that arrived as signals."""

    stop: asyncio.Event = field(default_factory=asyncio.Event)
    reload: asyncio.Event = field(default_factory=asyncio.Event)


async def until_signalled(serving: Callable[[Signalled], Awaitable[None]]) -> int:
    """Serve until SIGTERM or SIGINT; return the signal's number.

    SIGHUP sets ``reload``. Only where it is sent because the terminal that the server was started on has closed, it
    stops the server, as it stops other programs; not if it was to be ignored (``nohup``).
    """
    events, signalled = Signalled(), list[int]()
    ends_with_terminal = _has_terminal() and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN

    def stop(number: int) -> None:
        if signalled:
            os._exit(128 + number)  # a second signal exits at once
        signalled.append(number)
        events.stop.set()

    def hang_up() -> None:
        if ends_with_terminal and not _has_terminal():
            stop(signal.SIGHUP)
        else:
            events.reload.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    loop.add_signal_handler(signal.SIGHUP, hang_up)
    await serving(events)
    return signalled[0]


def _has_terminal() -> bool:
    """Return whether this process has a controlling terminal that is open."""
    try:
        os.close(os.open(_TERMINAL, os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True
