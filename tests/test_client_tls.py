"""`connect` over TLS: who is trusted, under which name, and that nobody else hears a header.

Real sockets on the loopback, real certificates of an authority of this run.
"""

from __future__ import annotations

import datetime as dt
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio
import trustme

from trio_ws import HandshakeError, Limits, connect, connect_stream
from trio_ws.testing import RawPeer

SECRET = [("Authorization", "Bearer hunter2")]


@dataclass(kw_only=True)
class Heard:
    """What a TLS server of the test was told."""

    port: int = 0
    names: list[str | None] = field(default_factory=list)
    plaintext: bytes = b""
    failures: list[BaseException] = field(default_factory=list)


@asynccontextmanager
async def tls_server(
    certificate: trustme.LeafCert, *, host: str = "127.0.0.1"
) -> AsyncIterator[Heard]:
    """Shakes hands, accepts one WebSocket per connection, notes what it hears."""
    heard = Heard()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    context.sni_callback = lambda _object, name, _context: heard.names.append(name)

    async def serve_one(tcp: trio.SocketStream) -> None:
        stream = trio.SSLStream(tcp, context, server_side=True, https_compatible=True)
        peer = RawPeer(stream, role="server")
        try:
            heard.plaintext += await peer.accept()
            frame = await peer.expect_close()
            await peer.send_close(frame.close_code)
        except (trio.BrokenResourceError, AssertionError, trio.EndOfChannel) as exc:
            heard.failures.append(exc)
        await trio.aclose_forcefully(tcp)

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host=host)
        heard.port = listeners[0].socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, serve_one, listeners)
        yield heard
        with trio.move_on_after(5):
            while not heard.plaintext and not heard.failures:
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()


async def refused(url: str, heard: Heard, **options: Any) -> HandshakeError:
    with pytest.raises(HandshakeError, match="agreeing on TLS") as caught:
        async with connect(url, proxy=None, headers=SECRET, **options):
            raise AssertionError("it opened")
    assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)
    return caught.value


@pytest.mark.row("H4")
async def test_a_wrong_host_name_is_refused(
    ca: trustme.CA, client_ssl_context: ssl.SSLContext
) -> None:
    async with tls_server(ca.issue_cert("other.example")) as heard:
        url = f"wss://localhost:{heard.port}/"
        error = await refused(url, heard, ssl_context=client_ssl_context)
        assert "hunter2" not in str(error)
    assert heard.plaintext == b"", "not one header was sent"
    assert heard.failures


@pytest.mark.row("H4")
async def test_an_expired_certificate_is_refused(
    ca: trustme.CA, client_ssl_context: ssl.SSLContext
) -> None:
    past = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    expired = ca.issue_cert("localhost", not_before=past - dt.timedelta(1), not_after=past)
    async with tls_server(expired) as heard:
        error = await refused(
            f"wss://localhost:{heard.port}/", heard, ssl_context=client_ssl_context
        )
        assert "expired" in str(error)
    assert heard.plaintext == b""


@pytest.mark.row("H4")
async def test_an_authority_that_nobody_knows_is_refused_by_default(ca: trustme.CA) -> None:
    """With no context given, certificates are checked against the system's."""
    async with tls_server(ca.issue_cert("localhost")) as heard:
        error = await refused(f"wss://localhost:{heard.port}/", heard)
        assert "verify" in str(error)
    assert heard.plaintext == b""


@pytest.mark.row("H4")
async def test_another_authority_is_refused(client_ssl_context: ssl.SSLContext) -> None:
    async with tls_server(trustme.CA().issue_cert("localhost")) as heard:
        await refused(f"wss://localhost:{heard.port}/", heard, ssl_context=client_ssl_context)
    assert heard.plaintext == b""


@pytest.mark.row("H4")
@pytest.mark.parametrize(
    ("host", "names"), [("127.0.0.1", ["other.example", "127.0.0.2"]), ("[::1]", ["::2"])]
)
async def test_an_address_that_the_certificate_does_not_name_is_refused(
    host: str, names: list[str], ca: trustme.CA, client_ssl_context: ssl.SSLContext
) -> None:
    async with tls_server(ca.issue_cert(*names), host=host.strip("[]")) as heard:
        await refused(f"wss://{host}:{heard.port}/", heard, ssl_context=client_ssl_context)
    assert heard.plaintext == b""


@pytest.mark.row("H4")
@pytest.mark.parametrize(
    ("host", "name"),
    [("localhost", "localhost"), ("LOCALHOST", "localhost"), ("127.0.0.1", None), ("[::1]", None)],
)
async def test_a_trusted_server_is_told_its_name_and_an_address_is_no_name(
    host: str, name: str | None, ca: trustme.CA, client_ssl_context: ssl.SSLContext
) -> None:
    """RFC 6066 section 3: no literal addresses in SNI. The certificate names the address itself."""
    certificate = ca.issue_cert("localhost", "127.0.0.1", "::1")
    listen_on = "::1" if "[" in host else "127.0.0.1"
    async with tls_server(certificate, host=listen_on) as heard:
        async with connect(
            f"wss://{host}:{heard.port}/", proxy=None, ssl_context=client_ssl_context
        ) as ws:
            assert ws.request.tls
            assert ws.request.scheme == "https"
    assert heard.names == [name]
    assert heard.plaintext.startswith(b"GET / HTTP/1.1\r\n")
    assert ws.closed is not None
    assert ws.closed.code == 1000


@pytest.mark.row("H4")
async def test_a_final_dot_is_no_part_of_the_name(
    ca: trustme.CA, client_ssl_context: ssl.SSLContext
) -> None:

    class Loopback(trio.abc.HostnameResolver):
        async def getaddrinfo(self, host: object, port: object, *args: object) -> Any:
            assert host == b"name.example."
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

        async def getnameinfo(self, *args: object) -> Any:
            raise NotImplementedError

    trio.socket.set_custom_hostname_resolver(Loopback())
    try:
        async with tls_server(ca.issue_cert("name.example")) as heard:
            url = f"wss://name.example.:{heard.port}/"
            async with connect(url, proxy=None, ssl_context=client_ssl_context):
                pass
    finally:
        trio.socket.set_custom_hostname_resolver(None)
    assert heard.names == ["name.example"]
    assert f"Host: name.example.:{heard.port}\r\n".encode() in heard.plaintext


async def test_a_server_that_does_not_speak_tls_is_an_error_with_its_cause(
    nursery: trio.Nursery,
) -> None:
    async def plain(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, plain, listeners)
    port = listeners[0].socket.getsockname()[1]
    with pytest.raises(HandshakeError, match="agreeing on TLS") as caught:
        async with connect(f"wss://127.0.0.1:{port}/", proxy=None):
            raise AssertionError("it opened")
    assert isinstance(caught.value.__cause__, ssl.SSLError)
    nursery.cancel_scope.cancel()


@pytest.mark.row("H1")
async def test_a_server_that_is_silent_in_tls_has_until_the_open_timeout(
    nursery: trio.Nursery,
) -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]  # the kernel accepts, nobody else does
    with pytest.raises(HandshakeError, match="not open after 1 s: agreeing on TLS"):
        async with connect(
            f"wss://127.0.0.1:{port}/", proxy=None, limits=Limits(handshake_timeout=1)
        ):
            raise AssertionError("it opened")
    for listener in listeners:
        await listener.aclose()


@pytest.mark.parametrize("shaken", [True, False])
async def test_a_tls_stream_of_the_callers_own(
    shaken: bool, ca: trustme.CA, client_ssl_context: ssl.SSLContext
) -> None:
    """Before its handshake and after it."""
    async with tls_server(ca.issue_cert("localhost")) as heard:
        tcp = await trio.open_tcp_stream("127.0.0.1", heard.port)
        stream = trio.SSLStream(
            tcp, client_ssl_context, server_hostname="localhost", https_compatible=True
        )
        if shaken:
            await stream.do_handshake()
        async with connect_stream(stream, "wss://localhost/") as ws:
            pass
        assert ws.closed is not None
        assert ws.closed.code == 1000
        assert tcp.socket.fileno() == -1


async def test_a_context_for_servers_is_an_error_and_leaks_no_socket() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    with pytest.raises(HandshakeError):
        async with connect(
            f"wss://127.0.0.1:{port}/",
            proxy=None,
            ssl_context=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER),
        ):
            raise AssertionError("it opened")
    stream = await listeners[0].accept()
    assert await stream.receive_some() == b"", "the client has closed its socket"
    await stream.aclose()
    for listener in listeners:
        await listener.aclose()
