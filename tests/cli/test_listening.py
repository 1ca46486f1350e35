"""The listening socket of the server and its URL."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from steering_server.cli.listening import listen, url_of
from steering_server.errors import ConfigError


def link_local() -> Iterator[str]:
    """The link-local addresses of this machine, each with its zone."""
    table = Path("/proc/net/if_inet6")
    for line in table.read_text().splitlines() if table.exists() else ():
        address, *_, zone = line.split()
        if address.startswith("fe80"):
            yield f"{socket.inet_ntop(socket.AF_INET6, bytes.fromhex(address))}%{zone}"


@pytest.mark.parametrize(
    ("host", "shown"),
    [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "0.0.0.0"), ("::1", "[::1]"), ("::", "[::]"), ("0:0:0::1", "[::1]")],
)
def test_an_address_is_written_as_in_urls(host: str, shown: str):
    with listen(host, 0) as listener:
        assert url_of(listener) == f"http://{shown}:{listener.getsockname()[1]}"


def test_a_name_is_shown_as_the_address_that_it_stands_for():
    with listen("localhost", 0) as listener:
        assert url_of(listener).startswith(("http://127.0.0.1:", "http://[::1]:"))


def test_the_zone_of_an_address_is_kept_and_written_as_in_urls():
    host = next(link_local(), None)
    if host is None:
        pytest.skip("this machine has no link-local address")
    with listen(host, 0) as listener:
        address, _, zone = host.partition("%")
        assert url_of(listener) == f"http://[{address}%25{zone}]:{listener.getsockname()[1]}"


@pytest.mark.parametrize("host", ["nonesuch.invalid", "256.1.1.1", "[::1]", "a..b", "x" * 70, "192.0.2.1"])
def test_an_address_that_cannot_be_listened_on_is_an_error_of_one_line(host: str):
    with pytest.raises(ConfigError, match="cannot listen on ") as caught:
        listen(host, 0)
    assert str(caught.value).startswith(f"cannot listen on {host} port 0: ")
    assert "\n" not in str(caught.value)


def test_an_empty_host_is_shown_in_the_error():
    with pytest.raises(ConfigError, match="cannot listen on '' port 0: "):
        listen("", 0)
