"""`connect` and `connect_stream` until they are open: what arrives, what does not, what breaks.

Lives here: opening, in memory on the mock clock, and over TCP. Must never live here: what a
response has to say (test_client_handshake), TLS (test_client_tls), the block (test_client_block).
"""

from __future__ import annotations

import errno
import os
import socket
import traceback
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from trio_ws import (
    Close,
    Deflate,
    HandshakeError,
    InvalidURL,
    Rejected,
    Response,
    WebSocket,
    connect,
    connect_stream,
    serve,
    serve_stream,
)
from trio_ws.testing import (
    TEXT,
    BreakingStream,
    ChunkedStream,
    RawPeer,
    WrappedStream,
    accept_token,
    encode_frame,
)

from .client_world import PERFECT, URL, conversation, server_and_stream

# -- opening -------------------------------------------------------------------------------------


async def test_client_and_server_of_ours_understand_each_other(nursery: trio.Nursery) -> None:
    """With compression; the request and the response are there."""
    near, far = trio.testing.memory_stream_pair()

    async def handler(ws: WebSocket) -> None:
        async for message in ws:
            await ws.send(message)

    nursery.start_soon(partial(serve_stream, handler, far, compression=Deflate()))
    async with connect_stream(near, URL, compression=Deflate()) as ws:
        for message in ("hello", "", "x" * 100_000, b"\x00\xff"):
            await ws.send(message)
            assert await ws.receive() == message
        assert ws.response is not None
        assert ws.response.status == 101
        assert b"permessage-deflate" in (ws.response.header("sec-websocket-extensions") or b"")
        assert ws.request.path == "/chat"
        assert await ws.ping() >= 0
    assert ws.closed == Close(code=1000, initiator="local")


async def test_the_subprotocol_agreed_upon_is_known(nursery: trio.Nursery) -> None:
    server, stream = server_and_stream()

    async def accept() -> None:
        head = await server.accept(headers=[(b"Sec-WebSocket-Protocol", b"b")])
        assert b"Sec-WebSocket-Protocol: a, b\r\n" in head

    nursery.start_soon(accept)
    async with connect_stream(stream, URL, subprotocols=["a", "b"]) as ws:
        assert ws.subprotocol == "b"
        await server.stream.aclose()


async def test_messages_behind_the_101_are_received(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """In the very packet of the response, byte for byte."""
    server, stream = server_and_stream()
    glued = encode_frame(TEXT, b"first") + encode_frame(TEXT, b"second") + b"\x81\x05th"

    async def accept() -> None:
        key = (await server.receive_head()).partition(b"Sec-WebSocket-Key: ")[2].split(b"\r\n")[0]
        head = (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept_token(key) + b"\r\n\r\n"
        )
        await server.send_raw(head + glued)
        await trio.sleep(1)
        await server.send_raw(b"ird")

    nursery.start_soon(accept)
    async with connect_stream(stream, URL) as ws:
        assert [await ws.receive() for _ in range(3)] == ["first", "second", "third"]
        await server.stream.aclose()


@pytest.mark.parametrize("size", [1, 3, 7, 4096])
async def test_the_response_may_come_in_any_pieces(nursery: trio.Nursery, size: int) -> None:
    near, far = trio.testing.memory_stream_pair()
    server = RawPeer(ChunkedStream(far, size), role="server")
    nursery.start_soon(server.accept)
    async with connect_stream(near, URL) as ws:
        await server.send_message("hello")
        assert await ws.receive() == "hello"
        await server.stream.aclose()


Speak = Callable[[RawPeer], Awaitable[object]]


async def until_cut_off(speak: Speak, server: RawPeer) -> None:
    """Speak until the other side has closed."""
    try:
        await speak(server)
    except trio.BrokenResourceError:
        pass


async def says_nothing(server: RawPeer) -> None:
    await server.receive_head()
    await trio.sleep_forever()


async def does_not_even_read(server: RawPeer) -> None:
    await trio.sleep_forever()


async def never_ends_its_head(server: RawPeer) -> None:
    await server.send_raw(b"HTTP/1.1 101 Switching Protocols\r\n")
    while True:
        await server.send_raw(b"X: y\r\n")
        await trio.sleep(0.25)


async def sends_hints_for_ever(server: RawPeer) -> None:
    while True:
        await server.send_raw(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        await trio.sleep(1.5)


@pytest.mark.row("H1")
@pytest.mark.parametrize(
    "speak", [says_nothing, does_not_even_read, never_ends_its_head, sends_hints_for_ever]
)
async def test_a_server_that_does_not_come_to_the_point_has_until_the_open_timeout(
    speak: Speak, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """Exactly `handshake_timeout` seconds, then an error that says so, and the stream is closed."""
    server, stream = server_and_stream()
    nursery.start_soon(until_cut_off, speak, server)
    started = trio.current_time()
    with pytest.raises(HandshakeError, match=r"not open after 7 s") as caught:
        async with connect_stream(stream, URL, limits=PERFECT):
            raise AssertionError("it opened")
    assert trio.current_time() - started == pytest.approx(7)
    assert isinstance(caught.value.__cause__, trio.TooSlowError)
    assert stream.closed
    nursery.cancel_scope.cancel()


@pytest.mark.row("H1")
async def test_an_endless_body_of_a_refusal_is_cut_at_the_open_timeout(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """Its head has come: that is the answer, with as much of the body as there is."""
    server, stream = server_and_stream()

    async def refuse(server: RawPeer) -> None:
        await server.send_raw(b"HTTP/1.1 403 Forbidden\r\n\r\n")
        while True:
            await server.send_raw(b"no ")
            await trio.sleep(1)

    nursery.start_soon(until_cut_off, refuse, server)
    started = trio.current_time()
    with pytest.raises(Rejected) as caught:
        async with connect_stream(stream, URL, limits=PERFECT):
            raise AssertionError("it opened")
    assert trio.current_time() - started == pytest.approx(7)
    assert caught.value.response.body.startswith(b"no no no ")
    assert str(caught.value) == "the server answered 403 Forbidden"
    assert stream.closed
    nursery.cancel_scope.cancel()


async def test_a_huge_body_of_a_refusal_is_not_waited_for(nursery: trio.Nursery) -> None:
    server, stream = server_and_stream()

    async def refuse() -> None:
        await server.send_raw(b"HTTP/1.1 999 \xff\r\n\r\n" + b"x" * 100_000)

    nursery.start_soon(refuse)
    with pytest.raises(Rejected, match=r"answered 999$") as caught:
        async with connect_stream(stream, URL):
            raise AssertionError("it opened")
    assert len(caught.value.response.body) == 64 * 1024


@pytest.mark.parametrize("at", [0, 10, 40])
async def test_a_stream_that_breaks_while_opening_is_a_handshake_error(
    at: int, nursery: trio.Nursery
) -> None:
    server, stream = server_and_stream()
    nursery.start_soon(until_cut_off, RawPeer.accept, server)
    broken = BreakingStream(stream, receive_at=at)
    with pytest.raises(HandshakeError, match="broke while receiving") as caught:
        async with connect_stream(broken, URL):
            raise AssertionError("it opened")
    assert isinstance(caught.value.__cause__, trio.BrokenResourceError)
    assert broken.closed


async def test_a_reset_behind_the_head_of_a_refusal_does_not_hide_it(nursery: trio.Nursery) -> None:
    server, stream = server_and_stream()
    head = b"HTTP/1.1 403 No\r\nContent-Length: 9\r\n\r\n"
    nursery.start_soon(server.send_raw, head + b"cut")
    with pytest.raises(Rejected) as caught:
        async with connect_stream(BreakingStream(stream, receive_at=len(head) + 3), URL):
            raise AssertionError("it opened")
    assert caught.value.response.body == b"cut"


async def test_errors_of_a_callers_stream_that_are_not_of_its_kind_come_out_as_they_are() -> None:
    """A TooSlowError that we did not raise is not our open timeout."""

    class Odd(WrappedStream):
        async def receive_some(self, max_bytes: int | None = None) -> bytes:
            await trio.lowlevel.checkpoint()
            raise mine

    mine = trio.TooSlowError("mine")
    odd = Odd(server_and_stream()[1])
    with pytest.raises(trio.TooSlowError) as caught:
        async with connect_stream(odd, URL):
            raise AssertionError("it opened")
    assert caught.value is mine
    assert odd.closed


async def test_a_callers_own_timeout_is_the_callers(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """While opening and in the block."""
    _server, stream = server_and_stream()
    with pytest.raises(trio.TooSlowError):
        with trio.fail_after(3):
            async with connect_stream(stream, URL, limits=PERFECT):
                raise AssertionError("it opened")
    assert stream.closed
    with pytest.raises(trio.TooSlowError):
        async with conversation(nursery):
            with trio.fail_after(3):
                await trio.sleep_forever()


async def test_a_wrong_url_leaves_the_stream_alone() -> None:
    _, stream = server_and_stream()
    with pytest.raises(InvalidURL):
        async with connect_stream(stream, "http://example.com/"):
            raise AssertionError("it opened")
    assert not stream.closed


# -- over TCP ------------------------------------------------------------------------------------


async def test_connect_finds_the_server_and_names_addresses(nursery: trio.Nursery) -> None:
    async def handler(ws: WebSocket) -> None:
        async for message in ws:
            await ws.send(message)

    server = await nursery.start(serve, handler, 0)
    async with connect(f"ws://localhost:{server.port}/x?y=1", proxy=None) as ws:
        await ws.send("hello")
        assert await ws.receive() == "hello"
        assert ws.peer_address is not None
        assert ws.request.target == "/x?y=1"
    nursery.cancel_scope.cancel()


async def test_nobody_listens() -> None:
    """At once; the operating system's error is the cause, and its words, with the address, are
    what the error says: trio's own are only that all attempts failed."""
    with trio.socket.socket() as taken:
        await taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(HandshakeError, match="resolving and connecting") as caught:
            async with connect(f"ws://127.0.0.1:{port}/", proxy=None):
                raise AssertionError("it opened")
    assert isinstance(caught.value.__cause__, OSError)
    assert os.strerror(errno.ECONNREFUSED) in str(caught.value)
    assert str(port) in str(caught.value)


@pytest.mark.row("H1")
async def test_name_resolution_counts_too(autojump_clock: trio.testing.MockClock) -> None:
    """One deadline over name, TCP, proxy, TLS and handshake."""

    class Slow(trio.abc.HostnameResolver):
        async def getaddrinfo(self, *args: object, **keywords: object) -> Any:
            await trio.sleep(100)

        async def getnameinfo(self, *args: object, **keywords: object) -> Any:
            raise NotImplementedError

    trio.socket.set_custom_hostname_resolver(Slow())
    try:
        with pytest.raises(HandshakeError, match="not open after 7 s: resolving"):
            async with connect("ws://slow.example/", proxy=None, limits=PERFECT):
                raise AssertionError("it opened")
    finally:
        trio.socket.set_custom_hostname_resolver(None)
    assert trio.current_time() == pytest.approx(7)


async def test_a_name_that_does_not_exist_is_an_error_with_its_cause() -> None:
    class Nothing(trio.abc.HostnameResolver):
        async def getaddrinfo(self, *args: object, **keywords: object) -> Any:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        async def getnameinfo(self, *args: object, **keywords: object) -> Any:
            raise NotImplementedError

    trio.socket.set_custom_hostname_resolver(Nothing())
    try:
        with pytest.raises(HandshakeError, match="not known") as caught:
            async with connect("ws://nothing.example/", proxy=None):
                raise AssertionError("it opened")
    finally:
        trio.socket.set_custom_hostname_resolver(None)
    assert isinstance(caught.value.__cause__, socket.gaierror)


def test_response_is_what_rejected_carries() -> None:
    exc = Rejected(Response(404, body=b"x"))
    assert exc.response.body == b"x"
    assert "404 Not Found" in "".join(traceback.format_exception_only(exc))
