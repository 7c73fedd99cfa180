"""What a client can be told: spelled once, checked at the door, before any I/O."""

from __future__ import annotations

import inspect
import ssl
from collections.abc import Sequence
from dataclasses import FrozenInstanceError, fields, replace
from typing import Any, get_type_hints

import pytest
import trio
import trio.testing

from trio_ws import ClientOptions, Deflate, Instrument, Limits, connect, connect_stream, reconnect
from trio_ws._client_options import ClientKeywords


def test_the_keywords_are_the_options() -> None:
    """`ClientKeywords` repeats `ClientOptions` for type checkers, and may not lie to them."""
    names = {"Sequence": Sequence}
    options = get_type_hints(ClientOptions, localns=names)
    assert get_type_hints(ClientKeywords, localns=names) == options
    assert [field.name for field in fields(ClientOptions)] == list(options)


def test_every_option_says_why() -> None:
    source = inspect.getsource(ClientOptions)
    for field in fields(ClientOptions):
        _, _, behind = source.partition(f"\n    {field.name}: ")
        assert behind.split("\n", 2)[1].strip().startswith('"""'), f"{field.name} has no reason"


def test_options_are_values() -> None:
    options = ClientOptions(headers=iter([("A", "b")]), subprotocols=["x"])
    assert options.headers == ((b"A", b"b"),)
    assert options.subprotocols == ("x",)
    assert replace(options, redirects=1).headers == options.headers
    with pytest.raises(FrozenInstanceError):
        options.redirects = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"limit": Limits()}, TypeError, "limit"),
        ({"limits": None}, TypeError, "limits"),
        ({"compression": True}, TypeError, "compression"),
        ({"instruments": [Instrument]}, TypeError, "instruments"),
        ({"proxy": b"http://me:hunter2@p"}, TypeError, "proxy"),
        ({"ssl_context": True}, TypeError, "ssl_context"),
        ({"redirects": True}, TypeError, "redirects"),
        ({"redirects": 1.5}, TypeError, "redirects"),
        ({"redirects": -1}, ValueError, "redirects"),
        ({"headers": {"A": "b"}}, TypeError, "items"),
        ({"headers": [("A", "b\r\nC: d")]}, ValueError, "control"),
        ({"headers": [("Host", "a"), ("host", "b")]}, ValueError, "two Host"),
        ({"headers": [("Sec-WebSocket-Key", "x")]}, ValueError, "handshake"),
        ({"subprotocols": "chat"}, TypeError, "one str"),
        ({"subprotocols": ["a b"]}, ValueError, "token"),
        ({"subprotocols": ["a", "a"]}, ValueError, "twice"),
        ({"cancel_code": 1006}, ValueError, "1006"),
        ({"cancel_reason": "x" * 124}, ValueError, "123"),
    ],
)
async def test_a_wrong_option_is_an_error_at_every_door(
    options: dict[str, Any], error: type[Exception], words: str
) -> None:
    """Before any I/O: port 1 would answer with another error, and the stream stays untouched."""
    near, far = trio.testing.memory_stream_pair()
    doors: list[Any] = [
        connect("ws://127.0.0.1:1/", **options),
        reconnect("ws://127.0.0.1:1/", **options),
        connect_stream(near, "ws://h/", **options),
    ]
    for door in doors:
        with pytest.raises(error, match=words) as caught:
            async with door:
                raise AssertionError("it opened")
        assert "hunter2" not in str(caught.value)
    await near.send_all(b"still open")
    assert await far.receive_some() == b"still open"


@pytest.mark.parametrize(
    ("url", "options", "words"),
    [
        ("ws://127.0.0.1:1/", {"ssl_context": ssl.create_default_context()}, "wss://"),
        ("ws://127.0.0.1:1/", {"proxy": "https://me:hunter2@p/"}, "a proxy is"),
        ("ws://127.0.0.1:1/", {"proxy": "me:hunter2@p"}, "a proxy is"),
        ("ws://127.0.0.1:1/", {"proxy": "http://me:hunter2@p:99999"}, "a proxy is"),
        ("ws://127.0.0.1:1/", {"proxy": "http://me:hunter2@\u2100"}, "a proxy is"),
        ("ws://127.0.0.1:1/", {"proxy": "socks5://"}, "a proxy is"),
        ("http://127.0.0.1:1/", {}, "ws://"),
    ],
)
async def test_what_url_and_options_make_together_is_checked_too(
    url: str, options: dict[str, Any], words: str
) -> None:
    for door in (connect(url, **options), reconnect(url, **options)):
        with pytest.raises(ValueError, match=words) as caught:
            async with door:
                raise AssertionError("it opened")
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"ssl_context": ssl.create_default_context()},
        {"redirects": 1},
        {"proxy": "http://proxy.example"},
    ],
)
async def test_a_given_stream_brings_its_own_tls_and_proxy(options: dict[str, Any]) -> None:
    """Silently not encrypting, or going directly, would be worse than an error."""
    near, _ = trio.testing.memory_stream_pair()
    with pytest.raises(ValueError, match="given stream"):
        async with connect_stream(near, "wss://h/", **options):
            raise AssertionError("it opened")


def test_an_environments_proxy_does_not_concern_a_given_stream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("http_proxy", "nonsense://")

    async def main() -> None:
        near, far = trio.testing.memory_stream_pair()
        with trio.move_on_after(1):
            async with connect_stream(near, "ws://h/"):
                raise AssertionError("nobody answers")
        assert (await far.receive_some()).startswith(b"GET / ")

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_compression_is_an_option() -> None:
    assert ClientOptions(compression=Deflate()).compression == Deflate()
    assert ClientOptions().compression is None
