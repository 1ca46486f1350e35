"""Arguments of the client: base URLs as people write them, and errors for values that cannot be sent."""

import gc
from collections.abc import Callable
from typing import Any

import anyio
import httpx
import pytest

from steering_client import (
    AsyncSteeringClient,
    AsyncStream,
    ClientClosed,
    ConnectionFailed,
    InvalidArgument,
    NotFound,
    SteeringClient,
    SteeringClientError,
    Stream,
)

CLIENTS = [SteeringClient, AsyncSteeringClient]

Use = Callable[[Any], Any]


def health(client: Any) -> Any:
    return client.health()


def use(client_type: type, use: Use = health, **arguments: Any) -> Any:
    """Create a client of this type, use it, and close it; a stream is read to its end."""
    if client_type is SteeringClient:
        with SteeringClient(**arguments) as client:
            result = use(client)
            return list(result) if isinstance(result, Stream) else result

    async def run() -> Any:
        async with AsyncSteeringClient(**arguments) as client:
            result = use(client)
            return [chunk async for chunk in result] if isinstance(result, AsyncStream) else await result

    return anyio.run(run)


@pytest.mark.parametrize("end", ["", "/", "/v1", "/v1/", "//v1//"])
@pytest.mark.parametrize("client", CLIENTS)
def test_a_base_url_may_end_in_v1(url: str, client: type, end: str):
    assert use(client, base_url=url + end).status == "ok"
    assert use(client, lambda it: it.models(), base_url=url + end)[0].id == "tiny-llama"
    assert use(client, lambda it: it.stream("x", max_tokens=1), base_url=url + end)


@pytest.mark.parametrize(
    ("base_url", "asked"),
    [
        ("http://host/steer", "http://host/steer/v1/models"),
        ("http://host/steer/", "http://host/steer/v1/models"),
        ("http://host/steer/v1", "http://host/steer/v1/models"),
        ("https://host:8443/a/b/v1/", "https://host:8443/a/b/v1/models"),
        ("http://host/a%2Fb/v1", "http://host/a%2Fb/v1/models"),
        ("http://host/v1x", "http://host/v1x/v1/models"),
        ("HTTP://HOST/v1", "http://host/v1/models"),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1/models"),
        ("http://[fe80::1%25eth0]:8000", "http://[fe80::1%eth0]:8000/v1/models"),
        ("http://bücher.example/v1", "http://xn--bcher-kva.example/v1/models"),
    ],
)
@pytest.mark.parametrize("client", CLIENTS)
def test_a_path_before_v1_is_kept(client: type, base_url: str, asked: str):
    urls: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        urls.append(str(request.url))
        return httpx.Response(200, json={"object": "list", "data": []})

    use(client, lambda it: it.models(), base_url=base_url, transport=httpx.MockTransport(answer))
    assert urls == [asked]


@pytest.mark.parametrize(
    "base_url",
    [
        "", " ", "/", "127.0.0.1:8000", "localhost:8000", "host", "//host", "http://", "http:///v1", "http:host",
        "ftp://host", "htp://host", "ws://host", "file:///etc", "http://host:port", "http://host:99999", "http://[::1",
        "http://host\n", " http://host", "http://host?x=1", "http://host/v1#top", "http://\ud800", "http://\x00",
        "http://" + "x" * 70_000,
    ],
    ids=lambda base_url: ascii(base_url[:20]),
)  # fmt: skip
@pytest.mark.parametrize("client", CLIENTS)
def test_an_invalid_base_url_is_refused_with_what_is_expected(client: type, base_url: str):
    with pytest.raises(InvalidArgument, match=r"base URL is .*; expected is http://HOST:PORT") as caught:
        client(base_url)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("key", ["sëcret", "secret\n", " secret", "two secrets", "secret\x7f", "\ud800secret"])
@pytest.mark.parametrize("client", CLIENTS)
def test_an_invalid_key_is_refused_and_not_shown(client: type, key: str):
    with pytest.raises(InvalidArgument, match=r"api_key has .* allowed: printable ASCII without spaces") as caught:
        client(api_key=key)
    assert "cret" not in str(caught.value)


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf")])
@pytest.mark.parametrize("client", CLIENTS)
def test_an_invalid_timeout_is_refused(client: type, timeout: float):
    with pytest.raises(InvalidArgument, match=r"timeout is .*; allowed: a finite number of seconds above 0, or None"):
        client(timeout=timeout)


@pytest.mark.parametrize("client", CLIENTS)
def test_the_timeout_can_be_none(url: str, client: type):
    assert use(client, base_url=url, timeout=None).status == "ok"


@pytest.mark.parametrize(
    ("variable", "value"),
    [("HTTP_PROXY", "http://host:port"), ("ALL_PROXY", "ftp://host"), ("SSL_CERT_FILE", "/nowhere")],
)
@pytest.mark.parametrize("client", CLIENTS)
def test_invalid_proxies_and_certificates_are_an_error_of_the_client(
    client: type, variable: str, value: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(variable, value)
    with pytest.raises(InvalidArgument, match="the environment has invalid proxies or certificates: "):
        client()


@pytest.mark.parametrize(
    "options",
    [{"strength": float("nan")}, {"temperature": float("inf")}, {"stop": {"a"}}, {"model": "\ud800"}],
    ids=str,
)
@pytest.mark.parametrize("method", ["complete", "stream"])
@pytest.mark.parametrize("client", CLIENTS)
def test_a_value_that_json_cannot_represent_is_refused(client: type, method: str, options: dict[str, Any]):
    with pytest.raises(InvalidArgument, match="the request cannot be encoded as JSON: "):
        use(client, lambda it: getattr(it, method)("x", profile="heads", **options))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"left_out": ["L0H1"]}, r"left_out is \['L0H1'\], but no profile is given"),
        ({"profile": "heads", "left_out": "L0H1"}, "left_out is 'L0H1'; allowed: a list of components"),
    ],
    ids=str,
)
@pytest.mark.parametrize("client", CLIENTS)
def test_components_are_a_list_and_left_out_of_a_profile(client: type, options: dict[str, Any], says: str):
    with pytest.raises(InvalidArgument, match=says):
        use(client, lambda it: it.complete("x", **options))


@pytest.mark.parametrize("name", ["a b", "a/b", "a?b", "a#b", "../models", "ü", "\n", "\ud800", "%2e", "x" * 1000])
@pytest.mark.parametrize("client", CLIENTS)
def test_a_name_without_a_profile_is_not_found_whatever_its_characters(url: str, client: type, name: str):
    with pytest.raises(NotFound):
        use(client, lambda it: it.profile(name), base_url=url)


@pytest.mark.parametrize(
    "method",
    [
        health, lambda it: it.ready(), lambda it: it.models(), lambda it: it.profile("heads"),
        lambda it: it.complete("x"), lambda it: it.chat([]), lambda it: it.compare("x"), lambda it: it.stream("x"),
        lambda it: it.stream_chat([]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("client", CLIENTS)
def test_a_closed_client_says_that_it_is_closed(url: str, client: type, method: Use):
    def close_first(opened: Any) -> Any:
        if client is SteeringClient:
            opened.close()
            return method(opened)

        async def close_then_ask() -> Any:
            await opened.close()
            result = method(opened)
            return [chunk async for chunk in result] if isinstance(result, AsyncStream) else await result

        return close_then_ask()

    with pytest.raises(ClientClosed, match=f"the client of {url}/ is closed; create a new one"):
        use(client, close_first, base_url=url)


def test_closing_a_client_during_a_stream_is_an_error_of_the_client(url: str):
    client = SteeringClient(url)
    stream = client.stream("x", max_tokens=400, temperature=1.0)
    next(stream)
    client.close()
    with pytest.raises(SteeringClientError):
        list(stream)


def test_closing_an_async_client_during_a_stream_is_an_error_of_the_client(url: str):
    async def run() -> None:
        client = AsyncSteeringClient(url)
        stream = client.stream("x", max_tokens=400, temperature=1.0)
        await anext(stream)
        await client.close()
        async for _ in stream:
            pass

    with pytest.raises(SteeringClientError):
        anyio.run(run)


@pytest.mark.filterwarnings(
    "ignore:unclosed:ResourceWarning"
)  # connections of the first loop, which cannot be closed any more
def test_an_async_client_in_a_second_event_loop_is_an_error_of_the_client(url: str):
    client = AsyncSteeringClient(url)
    anyio.run(client.health)
    with pytest.raises(ConnectionFailed):
        anyio.run(client.health)
    del client
    gc.collect()
