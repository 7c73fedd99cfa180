"""Proxies: HTTP CONNECT and SOCKS, chosen by argument or environment, and never silently left out.

The proxies are tiny ones, played here over real sockets.
"""

from __future__ import annotations

import base64
import ipaddress
import ssl
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from trio_ws import HandshakeError, Limits, WebSocket, connect, serve, worth_retrying
from trio_ws._tunnel import ProxyURL, parse_proxy, proxy_for
from trio_ws._url import parse_url

VARIABLES = [
    *("http_proxy", "https_proxy", "ws_proxy", "wss_proxy", "all_proxy", "no_proxy"),
    "REQUEST_METHOD",
]


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this machine's environment says is not what is tested."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


# -- which proxy ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "environment", "port"),
    [
        ("ws://h/", {}, None),
        ("ws://h/", {"http_proxy": "http://p:1"}, 1),
        ("ws://h/", {"HTTP_PROXY": "http://p:1"}, 1),
        ("ws://h/", {"http_proxy": "p:1"}, 1),
        ("ws://h/", {"https_proxy": "http://p:1"}, None),
        ("ws://h/", {"ws_proxy": "http://p:1", "http_proxy": "http://p:2"}, 1),
        ("ws://h/", {"all_proxy": "socks5://p:1"}, 1),
        ("wss://h/", {"http_proxy": "http://p:1"}, None),
        ("wss://h/", {"https_proxy": "http://p:1"}, 1),
        ("wss://h/", {"wss_proxy": "http://p:1", "https_proxy": "http://p:2"}, 1),
        ("wss://h/", {"https_proxy": "", "all_proxy": "http://p:3"}, 3),
        ("ws://h/", {"HTTP_PROXY": "http://p:1", "REQUEST_METHOD": "GET"}, None),
    ],
)
def test_the_environment_names_a_proxy(
    url: str, environment: dict[str, str], port: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As elsewhere; a CGI script does not take one from its client's headers."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    chosen = proxy_for(parse_url(url), "env")
    assert (chosen and chosen.port) == port
    assert proxy_for(parse_url(url), None) is None


@pytest.mark.parametrize(
    ("url", "no_proxy", "bypassed"),
    [
        ("ws://example.com/", "example.com", True),
        ("ws://example.com/", "EXAMPLE.com", True),
        ("ws://example.com/", "other, example.com", True),
        ("ws://sub.example.com/", "example.com", True),
        ("ws://sub.example.com/", ".example.com", True),
        ("ws://badexample.com/", "example.com", False),
        ("ws://example.com/", "sub.example.com", False),
        ("ws://example.com./", "example.com", True),
        ("ws://example.com/", "*", True),
        ("ws://example.com/", "", False),
        ("ws://example.com/", "example.com:80", True),
        ("wss://example.com/", "example.com:443", True),
        ("wss://example.com/", "example.com:80", False),
        ("ws://example.com:8000/", "example.com:8000", True),
        ("ws://example.com:8000/", "example.com:8001", False),
        ("ws://example.com:8000/", "example.com", True),
        ("ws://127.0.0.1:8000/", "127.0.0.1", True),
        ("ws://[::1]/", "::1", True),
        ("ws://[::1]:8000/", "[::1]", True),
        ("ws://[::1]:8000/", "[::1]:8000", True),
        ("ws://[::1]:8000/", "[::1]:8001", False),
        ("ws://[::1]:8000/", "::2", False),
    ],
)
def test_no_proxy_names_hosts_with_and_without_ports(
    url: str, no_proxy: str, bypassed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("all_proxy", "http://p:1")
    monkeypatch.setenv("no_proxy", no_proxy)
    assert (proxy_for(parse_url(url), "env") is None) is bypassed
    assert proxy_for(parse_url(url), "http://p:1") is not None, "an argument is an argument"


@pytest.mark.parametrize(
    ("text", "proxy"),
    [
        ("http://p", ("http", "p", 80, "", "")),
        ("HTTP://P:3128/", ("http", "p", 3128, "", "")),
        ("socks5://p", ("socks5", "p", 1080, "", "")),
        ("socks5h://me@p", ("socks5h", "p", 1080, "me", "")),
        ("socks4a://me:a%40b%3ac@[::1]:9", ("socks4a", "::1", 9, "me", "a@b:c")),
    ],
)
def test_a_proxys_url(text: str, proxy: tuple[str, str, int, str, str]) -> None:
    parsed = parse_proxy(text)
    assert parsed == ProxyURL(
        scheme=proxy[0], host=proxy[1], port=proxy[2], username=proxy[3], password=proxy[4]
    )
    assert proxy[4] == "" or proxy[4] not in repr(parsed)


# -- tiny proxies --------------------------------------------------------------------------------

Greet = Callable[[trio.SocketStream, "Proxy"], Awaitable[tuple[str, int]]]


class Proxy:
    """One that greets as it is told, and then carries bytes to where it was told to."""

    def __init__(self, greet: Greet) -> None:
        self.greet = greet
        self.port = 0
        self.asked: list[Any] = []

    async def serve_one(self, client: trio.SocketStream) -> None:
        async with client:
            try:
                host, port = await self.greet(client, self)
                async with await trio.open_tcp_stream(host, port) as server:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(carry, client, server, nursery.cancel_scope)
                        nursery.start_soon(carry, server, client, nursery.cancel_scope)
            except (trio.BrokenResourceError, Refused):
                pass


class Refused(Exception):
    pass


async def carry(
    source: trio.SocketStream, sink: trio.SocketStream, scope: trio.CancelScope
) -> None:
    try:
        async for chunk in source:
            await sink.send_all(chunk)
    except trio.BrokenResourceError:
        pass
    scope.cancel()


async def read_exactly(stream: trio.SocketStream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = await stream.receive_some(size - len(data))
        if not piece:
            raise Refused
        data += piece
    return data


async def read_head(stream: trio.SocketStream, proxy: Proxy) -> tuple[str, int]:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += await read_exactly(stream, 1)
    proxy.asked.append(head)
    host, _, port = head.split(b" ")[1].decode().rpartition(":")
    return host.strip("[]"), int(port)


async def http_connect(stream: trio.SocketStream, proxy: Proxy) -> tuple[str, int]:
    where = await read_head(stream, proxy)
    await stream.send_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
    return where


async def http_in_drops(stream: trio.SocketStream, proxy: Proxy) -> tuple[str, int]:
    """Byte by byte, with headers and a 1xx: what came first is not all of it."""
    where = await read_head(stream, proxy)
    for byte in b"HTTP/1.1 103 Hints\r\n\r\nHTTP/1.1 200 OK\r\nVia: 1.1 tiny\r\nX: \xff\r\n\r\n":
        await stream.send_all(bytes([byte]))
        await trio.sleep(0)
    return where


async def socks5(stream: trio.SocketStream, proxy: Proxy) -> tuple[str, int]:
    """RFC 1928, with RFC 1929 where the client offers it."""
    _version, count = await read_exactly(stream, 2)
    methods = await read_exactly(stream, count)
    await stream.send_all(b"\x05\x02" if 2 in methods else b"\x05\x00")
    if 2 in methods:
        name = await read_exactly(stream, (await read_exactly(stream, 2))[1])
        password = await read_exactly(stream, (await read_exactly(stream, 1))[0])
        proxy.asked.append((name, password))
        await stream.send_all(b"\x01\x00")
    kind = (await read_exactly(stream, 4))[3]
    if kind == 3:
        host = (await read_exactly(stream, (await read_exactly(stream, 1))[0])).decode()
        proxy.asked.append(host)
        host = "127.0.0.1"  # the names of this test resolve here only
    else:
        host = str(ipaddress.ip_address(await read_exactly(stream, 4 if kind == 1 else 16)))
        proxy.asked.append(host)
    port = int.from_bytes(await read_exactly(stream, 2), "big")
    await stream.send_all(b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x50")
    return host, port


def answers(answer: bytes) -> Greet:
    async def greet(stream: trio.SocketStream, proxy: Proxy) -> tuple[str, int]:
        proxy.asked.append(await stream.receive_some())
        await stream.send_all(answer)
        await stream.send_eof()
        await stream.receive_some()
        raise Refused

    return greet


async def falls_silent(stream: trio.SocketStream, proxy: Proxy) -> tuple[str, int]:
    proxy.asked.append(await stream.receive_some())
    if await stream.receive_some() == b"":
        proxy.asked.append("closed")
    raise Refused


@asynccontextmanager
async def a_proxy(greet: Greet) -> AsyncIterator[Proxy]:
    proxy = Proxy(greet)
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        proxy.port = listeners[0].socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, proxy.serve_one, listeners)
        yield proxy
        nursery.cancel_scope.cancel()


async def echo(ws: WebSocket) -> None:
    async for message in ws:
        await ws.send(message)


@asynccontextmanager
async def an_echo_server(**options: Any) -> AsyncIterator[int]:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(
            lambda task_status: serve(echo, 0, host="127.0.0.1", task_status=task_status, **options)
        )
        yield server.port
        nursery.cancel_scope.cancel()


async def says_hello(url: str, **options: Any) -> None:
    async with connect(url, **options) as ws:
        await ws.send("hello")
        assert await ws.receive() == "hello"


# -- through them --------------------------------------------------------------------------------


@pytest.mark.parametrize("greet", [http_connect, http_in_drops])
async def test_through_http_connect(greet: Greet) -> None:
    """The request to the proxy names the server, and carries no header of the caller's."""
    async with an_echo_server() as port, a_proxy(greet) as proxy:
        url = f"ws://127.0.0.1:{port}/secret-path"
        headers = [("Authorization", "Bearer hunter2")]
        await says_hello(url, proxy=f"http://127.0.0.1:{proxy.port}", headers=headers)
        assert proxy.asked == [
            f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
        ]


async def test_a_proxy_is_told_who_we_are() -> None:
    async with an_echo_server() as port, a_proxy(http_connect) as proxy:
        await says_hello(
            f"ws://127.0.0.1:{port}/", proxy=f"http://me:hunter2%21@127.0.0.1:{proxy.port}"
        )
        token = base64.b64encode(b"me:hunter2!")
        assert b"Proxy-Authorization: Basic " + token + b"\r\n" in proxy.asked[0]


@pytest.mark.parametrize("scheme", ["http", "socks5h"])
async def test_tls_goes_through_a_proxy_to_the_server(
    scheme: str, server_ssl_context: ssl.SSLContext, client_ssl_context: ssl.SSLContext
) -> None:
    """The name that is checked is the server's."""
    greet = http_connect if scheme == "http" else socks5
    async with an_echo_server(ssl_context=server_ssl_context) as port, a_proxy(greet) as proxy:
        await says_hello(
            f"wss://localhost:{port}/",
            ssl_context=client_ssl_context,
            proxy=f"{scheme}://127.0.0.1:{proxy.port}",
        )
        assert len(proxy.asked) == 1


@pytest.mark.parametrize(
    ("scheme", "host", "asked"),
    [
        ("socks5", "127.0.0.1", "127.0.0.1"),
        ("socks5h", "name.only.the.proxy.knows.example", "name.only.the.proxy.knows.example"),
        ("socks5", "localhost", "127.0.0.1"),
    ],
)
async def test_through_socks5(scheme: str, host: str, asked: str) -> None:
    """``socks5h`` leaves the resolving of names to the proxy, ``socks5`` does it here."""
    async with an_echo_server() as port, a_proxy(socks5) as proxy:
        await says_hello(f"ws://{host}:{port}/", proxy=f"{scheme}://127.0.0.1:{proxy.port}")
        assert proxy.asked == [asked]


async def test_a_socks_proxy_is_told_who_we_are() -> None:
    async with an_echo_server() as port, a_proxy(socks5) as proxy:
        await says_hello(
            f"ws://127.0.0.1:{port}/", proxy=f"socks5://me:hunter2@127.0.0.1:{proxy.port}"
        )
        assert proxy.asked[0] == (b"me", b"hunter2")


async def test_the_environments_proxy_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with an_echo_server() as port, a_proxy(http_connect) as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        await says_hello(f"ws://127.0.0.1:{port}/")
        assert len(proxy.asked) == 1
        monkeypatch.setenv("no_proxy", f"127.0.0.1:{port}")
        await says_hello(f"ws://127.0.0.1:{port}/")
        await says_hello(f"ws://127.0.0.1:{port}/", proxy=None)
        assert len(proxy.asked) == 1


# -- what goes wrong -----------------------------------------------------------------------------


async def fails(proxy: str, **options: Any) -> HandshakeError:
    """The error; whatever it is, it repeats no password, neither do those it comes from."""
    with pytest.raises(HandshakeError) as caught:
        async with connect("ws://server.example/", proxy=proxy, **options):
            raise AssertionError("it opened")
    assert "hunter2" not in "".join(
        line for line in traceback.format_exception(caught.value) if not line.startswith("  File")
    )
    return caught.value


@pytest.mark.parametrize(
    ("scheme", "answer", "words"),
    [
        (
            "http",
            b"HTTP/1.1 407 Who are you\r\nContent-Length: 0\r\n\r\n",
            "the proxy answered 407",
        ),
        ("http", b"HTTP/1.1 302 Found\r\nLocation: http://x/\r\n\r\n", "the proxy answered 302"),
        ("http", b"", "not HTTP"),
        ("http", b"HTTP/1.1 200", "not HTTP"),
        ("http", b"SSH-2.0-x\r\n\r\n", "not HTTP"),
        ("http", b"HTTP/1.1 200 \r\n\r\nHTTP/1.1 101 Switching", "more than an answer"),
        ("http", b"HTTP/1.1 100 C\r\n\r\n" * 20, "more than an answer"),
        ("http", b"HTTP/1.1 200 x\r\n" + b"X: yyyyyyyyyy\r\n" * 9000, "not HTTP"),
        ("socks5", b"\x05\xff", "the proxy does not connect"),
        ("socks5", b"\x04\x00", "the proxy does not connect"),
        ("socks5", b"", "the proxy does not connect"),
        ("socks5h", b"\x05\x00\x05\x05\x00\x01" + bytes(6), "Connection refused by destination"),
        ("socks5h", b"\x05\x00\x05\x63\x00\x01", "the proxy does not connect"),
        ("socks5h", b"\x05\x00\x05\x00\x00\x03\x02\xff\xfe\x00\x50", "the proxy does not connect"),
        ("socks4a", b"\x00\x5b\x00\x00\x00\x00\x00\x00", "the proxy does not connect"),
    ],
)
async def test_a_proxy_that_refuses_or_raves_is_an_error(
    scheme: str, answer: bytes, words: str
) -> None:
    async with a_proxy(answers(answer)) as proxy:
        credentials = "" if scheme.startswith("socks5") else "me:hunter2@"
        url = f"{scheme}://{credentials}127.0.0.1:{proxy.port}"
        if scheme == "socks4a":
            url = url.replace("me:hunter2@", "me@")
        error = await fails(url)
        assert words in str(error)
        assert str(error).isprintable()


async def test_a_proxy_that_is_not_there_is_an_error() -> None:
    with trio.socket.socket() as taken:
        await taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        for scheme in ("http", "socks5"):
            error = await fails(f"{scheme}://me:hunter2@127.0.0.1:{port}")
            assert "connecting through the proxy" in str(error)


@pytest.mark.row("H1")
@pytest.mark.parametrize("scheme", ["http", "socks5h"])
async def test_a_silent_proxy_has_until_the_open_timeout(scheme: str) -> None:
    """And its socket is closed then."""
    async with a_proxy(falls_silent) as proxy:
        url = f"{scheme}://127.0.0.1:{proxy.port}"
        error = await fails(url, limits=Limits(handshake_timeout=0.1))
        assert str(error) == "not open after 0.1 s: connecting through the proxy"
        with trio.fail_after(5):
            while "closed" not in proxy.asked:
                await trio.sleep(0.01)


@pytest.mark.parametrize("password", ["hunter2\xe9", "hunter2" * 60])
async def test_credentials_that_socks_cannot_carry_are_an_error_without_them(
    password: str,
) -> None:
    async with a_proxy(socks5) as proxy:
        error = await fails(f"socks5://me:{password}@127.0.0.1:{proxy.port}")
        assert "the proxy does not connect" in str(error)


@pytest.mark.parametrize("scheme", ["http", "socks5"])
@pytest.mark.parametrize("by", ["argument", "environment"])
async def test_without_the_extra_a_proxy_is_a_clear_error_and_never_left_out(
    scheme: str, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not one connection is made, to the server least of all; trying again would not help."""
    monkeypatch.setitem(sys.modules, "python_socks", None)
    async with an_echo_server() as port, a_proxy(http_connect) as proxy:
        url = f"{scheme}://127.0.0.1:{proxy.port}"
        monkeypatch.setenv("all_proxy", url)
        with pytest.raises(HandshakeError, match=r'pip install "trio_ws\[proxy\]"') as caught:
            async with connect(
                f"ws://127.0.0.1:{port}/", proxy="env" if by == "environment" else url
            ):
                raise AssertionError("it opened")
        assert isinstance(caught.value.__cause__, ImportError)
        assert not worth_retrying(caught.value)
        assert proxy.asked == []


async def test_an_environment_that_names_no_known_proxy_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("http_proxy", "quic://me:hunter2@p")
    with pytest.raises(ValueError, match="a proxy is") as caught:
        async with connect("ws://127.0.0.1:1/"):
            raise AssertionError("it opened")
    assert "hunter2" not in str(caught.value)
