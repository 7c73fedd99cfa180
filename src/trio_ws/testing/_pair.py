"""Open WebSockets without a network and without an opening handshake, and requests for policies.

Lives here: `open_websocket`, `open_pair`, `request`. Must never live here: a second implementation
of anything: these are the library's own connections and values.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio
import trio.testing

from trio_ws._connection import Connection
from trio_ws._deflate import choose_offer_untrusted, make_offer
from trio_ws._limits import Limits
from trio_ws._permessage import PerMessageDeflate
from trio_ws._request import UpgradeRequest
from trio_ws._services import open_services
from trio_ws._websocket import WebSocket

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from trio_ws._deflate import Agreement, Deflate
    from trio_ws._request import Address

__all__ = ["open_pair", "open_websocket", "request"]


def request(
    target: str = "/",
    *,
    host: str | None = "localhost",
    origin: str | None = None,
    headers: Iterable[tuple[str | bytes, str | bytes]] = (),
    method: str = "GET",
    http_version: str = "1.1",
    peer_address: Address = ("127.0.0.1", 50000),
    local_address: Address = ("127.0.0.1", 80),
    tls: bool = False,
) -> UpgradeRequest:
    """A good upgrade request (RFC 6455 section 4.1), for tests of policies, checks and routes.

    Args:
        target: path and query, as sent.
        host: the `Host` header; None leaves it out.
        origin: the `Origin` header; None leaves it out, as clients that are no browsers do.
        headers: more headers, added at the end; str is sent as UTF-8, duplicates are kept.
        method: the method.
        http_version: such as "1.1".
        peer_address: the client's address, as the transport has it.
        local_address: the server's address, as the transport has it.
        tls: whether the transport is TLS.
    """
    usual: list[tuple[str, str | None]] = [
        ("Host", host),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Sec-WebSocket-Version", "13"),
        ("Origin", origin),
    ]
    present = [(name, value) for name, value in usual if value is not None]
    return UpgradeRequest(
        method=method.encode(),
        raw_target=target.encode(),
        http_version=http_version.encode(),
        headers=tuple((_bytes(name), _bytes(value)) for name, value in (*present, *headers)),
        peer_address=peer_address,
        local_address=local_address,
        tls=tls,
    )


@asynccontextmanager
async def open_websocket(
    stream: trio.abc.Stream,
    *,
    client: bool = False,
    limits: Limits | None = None,
    request: UpgradeRequest | None = None,
    context: object = None,
) -> AsyncIterator[WebSocket]:
    """An open WebSocket over `stream`, as if the opening handshake had just taken place on it.

    With a `RawPeer` at the other end of the stream this puts code under test opposite to a peer
    that does exactly what the test says. The ``with`` owns `stream`. Left normally, it closes the
    connection with 1000 if that is still open and waits for the end, for at most
    ``limits.close_timeout`` seconds; left by an exception or by cancellation, it ends the
    connection at once. Exceptions of the body come out as the objects they are.

    Args:
        stream: any `trio.abc.Stream`.
        client: whether to play the client, which masks (RFC 6455 section 5.3).
        limits: the bounds, in bytes and seconds; `Limits()` if None.
        request: what ``ws.request`` is; a plain one if None.
        context: what ``ws.context`` is.
    """
    async with open_services() as services:
        connection = Connection(stream, client=client, limits=limits or Limits(), services=services)
        async with _owned(connection):
            yield WebSocket(connection, request=request or _PLAIN_REQUEST, context=context)


@asynccontextmanager
async def open_pair(
    *,
    limits: Limits | None = None,
    compression: Deflate | None = None,
    streams: tuple[trio.abc.Stream, trio.abc.Stream] | None = None,
    request: UpgradeRequest | None = None,
    context: object = None,
) -> AsyncIterator[tuple[WebSocket, WebSocket]]:
    """Two open WebSockets that talk to each other in memory: ``(client, server)``.

    No sockets and no waiting for the network, so it goes well with an autojumping
    `trio.testing.MockClock`. Memory streams never block; pass
    ``streams=trio.testing.lockstep_stream_pair()``, or wrapped streams, where backpressure matters.

    Args:
        limits: the bounds of both sides, in bytes and seconds.
        compression: what both sides compress as (RFC 7692), agreed as the handshake of a client
            and a server that were both given it would; None, the default, is no compression.
        streams: the client's and the server's end of one transport, owned by the ``with``.
        request: what both sides' ``request`` is; a plain one if None.
        context: what ``server.context`` is.

    The end is that of `open_websocket`, for both sides at once.
    """
    near, far = trio.testing.memory_stream_pair() if streams is None else streams
    bounds, asked = limits or Limits(), request or _PLAIN_REQUEST
    agreement = None if compression is None else _agreement(compression)
    async with open_services() as services:
        client, server = (
            Connection(
                stream,
                client=is_client,
                limits=bounds,
                services=services,
                extensions=PerMessageDeflate.agreed(
                    agreement, compression, client=is_client, max_message=bounds.max_message
                ),
            )
            for stream, is_client in ((near, True), (far, False))
        )
        async with _owned(client, server):
            yield (
                WebSocket(client, request=asked),
                WebSocket(server, request=asked, context=context),
            )


@asynccontextmanager
async def _owned(*connections: Connection) -> AsyncIterator[None]:
    """End these connections with the body: politely and together, or else at once."""
    try:
        yield
        for connection in connections:
            connection.start_close(1000)
        for connection in connections:
            await connection.wait_gone()
    finally:
        for connection in connections:
            connection.kill()
        with trio.CancelScope(shield=True):
            for connection in connections:
                await connection.wait_gone()


def _agreement(compression: Deflate) -> Agreement:
    agreement = choose_offer_untrusted(compression, [make_offer(compression).encode()])
    assert agreement is not None, "what Deflate admits, a server that was given it can keep"
    return agreement


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


_PLAIN_REQUEST = request()
