"""The socket that the server listens on, and its URL."""

import logging
import resource
import socket
from typing import Any

from steering_server.errors import ConfigError

_OTHER_FILES = 256
"""Files that a server has open besides its connections, at most."""

_log = logging.getLogger(__name__)


def listen(host: str, port: int) -> socket.socket:
    """Listen on ``port`` of ``host``: an IP address, or a name, whose first address is used.

    Raises:
        ConfigError: the address cannot be listened on; the message gives the reason.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return _listener(family, address)
    except (OSError, UnicodeError) as exc:  # UnicodeError: not a valid host name
        reason = getattr(exc, "strerror", None) or exc
        raise ConfigError(f"cannot listen on {host or repr(host)} port {port}: {reason}") from exc


def url_of(listener: socket.socket) -> str:
    """Return the URL of ``listener``."""
    host, port = socket.getnameinfo(listener.getsockname(), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
    if listener.family == socket.AF_INET6:
        host = f"[{host.replace('%', '%25')}]"  # a link-local address ends with its zone, after a percent sign
    return f"http://{host}:{port}"


def allow_connections(number: int) -> None:
    """Let this process have ``number`` connections open, as far as the system does."""
    wanted = number + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        if allowed < wanted:
            _log.warning("max_connections is %d, but this process may have only %d files open", number, allowed)


def _listener(family: int, address: tuple[Any, ...]) -> socket.socket:
    # asyncio disables Nagle's algorithm (delays of 40 ms) only on sockets created with IPPROTO_TCP.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()  # before the model loads: bind alone does not fail if another process has bound the port
    except OSError:
        listener.close()
        raise
    return listener
