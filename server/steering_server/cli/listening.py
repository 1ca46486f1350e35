"""The port that the server answers on, and what that is called."""

import socket
from typing import Any

from steering_server.errors import ConfigError


def listen(host: str, port: int) -> socket.socket:
    """Listen on ``port`` of ``host``: an address, or a name, of which the first address is taken.

    Raises:
        ConfigError: that is not possible; the message says why.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return _listener(family, address)
    except (OSError, UnicodeError) as exc:  # the latter for what cannot be the name of a host
        reason = getattr(exc, "strerror", None) or exc
        raise ConfigError(f"cannot listen on {host or repr(host)} port {port}: {reason}") from exc


def url_of(listener: socket.socket) -> str:
    """Return the URL at which ``listener`` is reached."""
    host, port = socket.getnameinfo(listener.getsockname(), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
    if listener.family == socket.AF_INET6:
        host = f"[{host.replace('%', '%25')}]"  # a link-local address ends with its zone, after a percent sign
    return f"http://{host}:{port}"


def _listener(family: int, address: tuple[Any, ...]) -> socket.socket:
    # asyncio turns off Nagle's delays of 40 ms only for sockets that say they are TCP
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()  # two that have only bound it do not notice each other
    except OSError:
        listener.close()
        raise
    return listener
