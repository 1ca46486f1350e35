"""Who may reach a server: its API keys, and whether it may do without."""

import ipaddress
import socket

from steering_server.access.gate import Gate
from steering_server.access.keyring import Keyring
from steering_server.config import ServerSettings
from steering_server.errors import ConfigError


def open_gate(settings: ServerSettings, listener: socket.socket) -> Gate:
    """Return the gate of a server that listens on ``listener``.

    Raises:
        ConfigError: the API keys cannot be read, or there are none, others can reach the server, and ``insecure`` is
            not set.
    """
    keyring = Keyring.open(settings.api_keys_file, settings.api_key_hashes)
    is_private = is_loopback(listener)
    if keyring is None and not is_private and not settings.insecure:
        raise ConfigError(
            f"host is {settings.host}, which others can reach, and there are no API keys: make some with steer keys "
            "add and name their file with --api-keys-file, or say --insecure"
        )
    return Gate(keyring, admin_without_key=is_private)


def is_loopback(listener: socket.socket) -> bool:
    """Return whether ``listener`` can be reached from this machine only."""
    address = ipaddress.ip_address(listener.getsockname()[0].partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)
