"""`serve_upgrade`: the same handshake and life, behind a request that somebody else has read."""

from __future__ import annotations

from typing import Any

import h11
import pytest
import trio
import trio.testing

from trio_ws import Limits, Policy, Response, UpgradeRequest, WebSocket, serve_upgrade
from trio_ws.testing import TEXT, RawPeer, encode_frame, upgrade_head

VERSION = b"sec-websocket-version"


async def echo(ws: WebSocket) -> None:
    async for message in ws:
        await ws.send(message)


def read(head: bytes) -> tuple[h11.Request, bytes]:
    """What an HTTP server has after reading `head`: the request, and what came behind it."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(head)
    request = connection.next_event()
    assert isinstance(request, h11.Request)
    return request, connection.trailing_data[0]


async def hand_over(
    nursery: trio.Nursery, head: bytes, handler: Any = echo, **options: Any
) -> tuple[trio.StapledStream[Any, Any], trio.Event]:
    """The client's end, and an event that says that `serve_upgrade` has returned."""
    ours, theirs = trio.testing.memory_stream_pair()
    request, trailing = read(head)
    done = trio.Event()

    async def run() -> None:
        await serve_upgrade(handler, theirs, request, trailing, **options)
        done.set()

    nursery.start_soon(run)
    return ours, done


async def test_a_request_read_elsewhere_becomes_a_websocket(nursery: trio.Nursery) -> None:
    """The frame that was read with it is not lost; it returns when the connection is over."""
    seen: list[WebSocket] = []

    async def handler(ws: WebSocket) -> None:
        seen.append(ws)
        await echo(ws)

    glued = encode_frame(TEXT, b"first", masked=True)
    head = upgrade_head("/a%20b?c", headers=[(b"Cookie", b"d=e")])
    stream, done = await hand_over(nursery, head + glued, handler)
    peer = RawPeer(stream)
    assert (await peer.receive_head()).startswith(b"HTTP/1.1 101 ")
    assert await peer.receive_message() == "first"
    await peer.send_message("second")
    assert await peer.receive_message() == "second"
    request = seen[0].request
    assert (request.path, request.query, request.cookies) == ("/a b", "c", {"d": "e"})
    assert (request.tls, request.scheme, request.peer_address) == (False, "http", None)
    await peer.send_close(1000)
    await peer.expect_close(1000)
    await done.wait()


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (upgrade_head(headers=[(b"Origin", b"https://evil.example")]), b"403"),
        (upgrade_head(headers=[(b"Content-Length", b"5")]), b"400"),
        (upgrade_head(key=b"short"), b"400"),
        (upgrade_head(headers=[(b"Sec-WebSocket-Version", b"12")], omit=[VERSION]), b"426"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"426"),
        (b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n", b"505"),
    ],
)
async def test_the_table_is_gone_through(nursery: trio.Nursery, head: bytes, status: bytes) -> None:
    """The refusal is sent from here, and the stream is closed."""
    stream, done = await hand_over(nursery, head)
    received = b""
    while data := await stream.receive_some():
        received += data
    assert received.split(b" ", 2)[1] == status
    assert b"\r\nConnection: " in received
    await stream.aclose()
    await done.wait()


async def test_options_are_those_of_the_other_doors(nursery: trio.Nursery) -> None:
    async def authorize(request: UpgradeRequest) -> Response:
        return Response(401, body="who are you?")

    stream, done = await hand_over(nursery, upgrade_head(), authorize=authorize)
    assert (await stream.receive_some()).startswith(b"HTTP/1.1 401 ")
    await stream.aclose()
    await done.wait()


async def test_authorize_has_the_deadline_of_a_handshake(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    async def authorize(request: UpgradeRequest) -> None:
        await trio.sleep_forever()

    limits = Limits(handshake_timeout=3)
    stream, done = await hand_over(nursery, upgrade_head(), authorize=authorize, limits=limits)
    assert (await stream.receive_some()).startswith(b"HTTP/1.1 503 ")
    assert trio.current_time() == pytest.approx(3, abs=0.05)
    await stream.aclose()
    await done.wait()


async def test_cancelled_it_tells_the_peer(autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as nursery:
        stream, done = await hand_over(nursery, upgrade_head(), cancel_code=1012)
        peer = RawPeer(stream)
        await peer.receive_head()
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await peer.expect_close(1012)
            await peer.send_close(1012)
            await peer.expect_eof()
    assert not done.is_set()


async def test_over_tls_the_request_is_https(
    nursery: trio.Nursery, server_ssl_context: Any, client_ssl_context: Any
) -> None:
    """With the policy that goes with it: the page's origin is https."""
    ours, theirs = trio.testing.memory_stream_pair()
    client = trio.SSLStream(
        ours, client_ssl_context, server_hostname="localhost", https_compatible=True
    )
    server = trio.SSLStream(theirs, server_ssl_context, server_side=True, https_compatible=True)

    async def serve() -> None:
        head = await server.receive_some()
        request, trailing = read(bytes(head))
        await serve_upgrade(echo, server, request, trailing, policy=Policy())

    nursery.start_soon(serve)
    async with RawPeer(client) as peer:
        await peer.request(headers=[(b"Origin", b"https://localhost")])
        await peer.send_message("sealed")
        assert await peer.receive_message() == "sealed"


async def test_wrong_arguments_leave_the_stream_alone() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    request, trailing = read(upgrade_head())
    with pytest.raises(TypeError, match="h11"):
        await serve_upgrade(echo, theirs, "GET /", trailing)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="trailing_data"):
        await serve_upgrade(echo, theirs, request, None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="polcy"):
        await serve_upgrade(echo, theirs, request, trailing, polcy=1)  # type: ignore[call-arg]
    await theirs.send_all(b"alive")
    assert await ours.receive_some() == b"alive"
