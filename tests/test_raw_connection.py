"""Connections over real sockets: what memory streams cannot show.

Lives here: resets, half-closes, TLS without close_notify, descriptors that are used again; loopback
only, short limits, generous bounds. Must never live here: the opening handshake's refusals.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from trio_ws import Close, ConnectionClosed, Limits, Server, WebSocket, serve
from trio_ws.testing import (
    BINARY,
    CLOSE,
    CONTINUATION,
    TEXT,
    RawPeer,
    encode_frame,
    open_websocket,
)

LIMITS = Limits(close_timeout=1.0, cancel_grace=0.3)
LONG = 10.0
"""Seconds: far more than anything here takes."""

Handler = Callable[[WebSocket], Awaitable[object]]


class Ends:
    """A handler that echoes and keeps how each connection ended for it."""

    def __init__(self) -> None:
        self.closes: list[Close] = []

    async def __call__(self, ws: WebSocket) -> None:
        try:
            async for message in ws:
                await ws.send(message)
        finally:
            if ws.closed is not None:
                self.closes.append(ws.closed)

    async def wait_for(self, count: int) -> None:
        while len(self.closes) < count:
            await trio.sleep(0.01)


@asynccontextmanager
async def serving(
    handler: Handler, *, context: ssl.SSLContext | None = None, limits: Limits = LIMITS
) -> AsyncIterator[Server]:
    with trio.fail_after(LONG):
        async with trio.open_nursery() as nursery:
            server = await nursery.start(
                lambda task_status: serve(
                    handler,
                    0,
                    host="127.0.0.1",
                    ssl_context=context,
                    limits=limits,
                    task_status=task_status,
                )
            )
            yield server
            nursery.cancel_scope.cancel()


async def dial(server: Server) -> RawPeer:
    peer = RawPeer(await trio.open_tcp_stream("127.0.0.1", server.port))
    await peer.request()
    return peer


def reset(stream: trio.abc.Stream) -> None:
    """End a TCP connection with RST instead of FIN."""
    assert isinstance(stream, trio.SocketStream)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()


@pytest.mark.row("D1")
async def test_the_server_closes_tcp_first() -> None:
    """Close 1000 "bye" is echoed and followed by FIN, although the client keeps its side open."""
    ends = Ends()
    async with serving(ends) as server, await dial(server) as peer:
        await peer.send_close(1000, "bye")
        assert (await peer.expect_close(1000)).close_reason == "bye"
        await peer.expect_eof()
        await ends.wait_for(1)
        assert ends.closes == [Close(code=1000, reason="bye", initiator="peer")]


@pytest.mark.row("D5")
async def test_a_silent_peer_is_closed_at_the_deadline() -> None:
    """A client that never answers our Close gets FIN after `close_timeout`."""
    closes: list[Close | None] = []

    async def handler(ws: WebSocket) -> None:
        await ws.close(4000)
        closes.append(ws.closed)

    async with serving(handler, limits=Limits(close_timeout=0.2)) as server:
        async with await dial(server) as peer:
            await peer.expect_close(4000)
            await peer.expect_eof()
        while not closes:
            await trio.sleep(0.01)
        assert closes == [Close(code=1006, initiator="nobody")]


@pytest.mark.row("D6")
async def test_data_behind_our_close_is_discarded() -> None:
    """A peer that goes on sending for a while before it answers: no reset, a clean end."""
    closes: list[Close | None] = []

    async def handler(ws: WebSocket) -> None:
        await ws.close(4000)
        closes.append(ws.closed)

    async with serving(handler) as server, await dial(server) as peer:
        for _ in range(200):
            await peer.send_message(b"x" * 1000)
            await peer.send_ping(b"?")
        await peer.expect_close(4000)
        await peer.send_close(4000)
        await peer.expect_eof()
    assert closes == [Close(code=4000, initiator="local")]
    assert [frame.opcode for frame in peer.frames] == [CLOSE]


@pytest.mark.row("D7")
async def test_a_close_inside_a_fragmented_message() -> None:
    """Its code is echoed."""
    async with serving(Ends()) as server, await dial(server) as peer:
        await peer.send_frame(TEXT, b"half", fin=False)
        await peer.send_close(4001)
        await peer.expect_close(4001)
        await peer.expect_eof()


TORN = {
    "boundary": b"",
    "header": b"\x82",
    "payload": encode_frame(BINARY, b"x" * 100, masked=True)[:50],
    "message": encode_frame(TEXT, b"x", fin=False, masked=True),
}


@pytest.mark.row("D10")
@pytest.mark.parametrize("torn", TORN.values(), ids=TORN.keys())
@pytest.mark.parametrize("rst", [False, True], ids=["fin", "rst"])
async def test_an_end_without_close_is_1006_and_hurts_nobody(torn: bytes, rst: bool) -> None:
    """Twenty peers end by FIN or RST, at a boundary or inside a frame: each 1006; another one, in
    the middle of its conversation, does not notice."""
    ends = Ends()
    async with serving(ends) as server, await dial(server) as healthy:
        for number in range(20):
            peer = await dial(server)
            await peer.send_message("hello")
            assert await peer.receive_message() == "hello"
            if torn:
                await peer.send_raw(torn)
            if rst:
                reset(peer.stream)
            await peer.aclose()
            await healthy.send_message(f"{number}")
            assert await healthy.receive_message() == f"{number}"
        await ends.wait_for(20)
        assert ends.closes == [Close(code=1006, initiator="nobody")] * 20
        await healthy.send_close()


@pytest.mark.row("D10")
async def test_tls_that_ends_without_close_notify(
    server_ssl_context: ssl.SSLContext, client_ssl_context: ssl.SSLContext
) -> None:
    """TCP ends under the TLS session: 1006, not 1000; with a WebSocket Close before it, that."""
    ends = Ends()
    async with serving(ends, context=server_ssl_context) as server:
        for says_close in (False, True):
            tcp = await trio.open_tcp_stream("127.0.0.1", server.port)
            peer = RawPeer(
                trio.SSLStream(
                    tcp, client_ssl_context, server_hostname="localhost", https_compatible=True
                )
            )
            await peer.request()
            await peer.send_message("hello")
            assert await peer.receive_message() == "hello"
            if says_close:
                await peer.send_close(1000)
                await peer.expect_close(1000)
            await tcp.aclose()
            await ends.wait_for(2 if says_close else 1)
        assert [close.code for close in ends.closes] == [1006, 1000]


@pytest.mark.row("D11")
async def test_a_half_close_still_gets_its_reply() -> None:
    """A client that shuts down its sending side after a request reads the reply, then the end."""

    async def handler(ws: WebSocket) -> None:
        async for message in ws:
            await trio.sleep(0.1)
            await ws.send(message)

    async with serving(handler) as server, await dial(server) as peer:
        await peer.send_message(b"x" * 100_000)
        await peer.send_eof()
        assert await peer.receive_message() == b"x" * 100_000
        await peer.read_to_end()
        assert not peer.partial


@pytest.mark.row("D13", "G1", "E1", "E2")
@pytest.mark.parametrize(
    ("code", "wire"),
    [
        (1002, encode_frame(TEXT, b"unmasked")),
        (1002, encode_frame(0x5, masked=True)),
        (1007, encode_frame(TEXT, b"\xff", masked=True)),
        (1009, encode_frame(BINARY, masked=True, declared_length=1 << 62)),
        (
            1009,
            encode_frame(TEXT, fin=False, masked=True)
            + encode_frame(CONTINUATION, fin=False, masked=True) * 10_000,
        ),
    ],
    ids=["unmasked", "opcode", "utf8", "length", "fragments"],
)
async def test_our_reason_reaches_a_peer_that_is_still_sending(code: int, wire: bytes) -> None:
    """The Close frame is readable although 300 KB more are under way when we fail the connection:
    no reset overtakes it."""
    async with serving(Ends()) as server, await dial(server) as peer:
        await peer.send_raw(wire + b"\x00" * 300_000)
        await peer.expect_close(code)
        await peer.expect_eof()


@pytest.mark.row("E5")
async def test_a_handler_that_never_reads_exerts_tcp_backpressure() -> None:
    """The client's writes stop being taken; what the kernel buffers is the bound."""

    async def handler(ws: WebSocket) -> None:
        await trio.sleep(LONG)

    taken = 0
    async with serving(handler) as server, await dial(server) as peer:
        with trio.move_on_after(0.5) as patience:
            for _ in range(1000):
                await peer.send_message(b"x" * 64 * 1024)
                taken += 64 * 1024
        assert patience.cancelled_caught
        assert taken < 32 * 1024 * 1024


@pytest.mark.row("C10")
async def test_five_thousand_queued_frames_arrive_in_order() -> None:
    """More frames than one writev takes, behind a peer that does not read at first."""
    near, far = socket_pair()
    peer = RawPeer(far)
    with trio.fail_after(LONG):
        async with open_websocket(near, limits=Limits(max_outbox=1 << 30)) as ws:
            for number in range(5000):
                await ws.send(f"{number} " + "x" * 50)
            for number in range(5000):
                message = await peer.receive_message()
                assert isinstance(message, str)
                assert message.startswith(f"{number} ")
            await peer.send_close()
        await peer.aclose()


def socket_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    left, right = socket.socketpair()
    left.setblocking(False)
    right.setblocking(False)
    return (
        trio.SocketStream(trio.socket.from_stdlib_socket(left)),
        trio.SocketStream(trio.socket.from_stdlib_socket(right)),
    )


async def test_replies_to_messages_that_came_together_are_written_together() -> None:
    """While more messages are ready nothing is written; the last reply writes all at once, and one
    that stays behind because its handler sleeps goes out all the same."""
    near, far = socket_pair()
    frame = encode_frame(TEXT, b"hello", masked=True)
    reply = encode_frame(TEXT, b"hello", masked=False)

    with trio.fail_after(LONG):
        async with open_websocket(near) as ws:
            await far.send_all(frame * 5)
            for number in range(1, 4):
                await ws.send(await ws.receive())
                assert read_now(far) == b"", number
            await trio.testing.wait_all_tasks_blocked()
            assert read_now(far) == reply * 3
            await ws.send(await ws.receive())
            assert read_now(far) == b""
            await ws.send(await ws.receive())
            assert read_now(far) == reply * 2
            await far.aclose()


def read_now(stream: trio.SocketStream) -> bytes:
    """What is there to be read at this moment."""
    readable, _, _ = select.select([stream.socket], [], [], 0)
    return os.read(stream.socket.fileno(), 1 << 16) if readable else b""


@pytest.mark.row("C10")
async def test_not_a_byte_goes_into_a_descriptor_that_is_used_again() -> None:
    """A connection with full buffers, a flusher and blocked senders is closed, and its descriptor's
    number is a stranger's at once: the stranger's socket stays silent, everybody wakes."""
    reused = 0
    for _ in range(50):
        near, far = socket_pair()
        number = near.socket.fileno()
        woken: list[BaseException] = []

        async def flood(ws: WebSocket, woken: list[BaseException] = woken) -> None:
            try:
                while True:
                    await ws.send(b"x" * 50_000)
            except ConnectionClosed as exc:
                woken.append(exc)

        with trio.fail_after(LONG):
            async with open_websocket(near, limits=LIMITS) as ws:
                async with trio.open_nursery() as nursery:
                    for _ in range(5):
                        nursery.start_soon(flood, ws)
                    await trio.testing.wait_all_tasks_blocked()
                    await trio.aclose_forcefully(ws)
                    stranger = socket_pair()
                    reused += number in [end.socket.fileno() for end in stranger]
                await trio.testing.wait_all_tasks_blocked()
                assert len(woken) == 5
            assert select.select([end.socket for end in stranger], [], [], 0)[0] == []
            for end in stranger:
                await end.aclose()
        await far.aclose()
    assert reused > 25


@pytest.mark.row("C11")
@pytest.mark.parametrize("how", ["fin", "rst", "close"])
async def test_every_waiter_wakes(how: str) -> None:
    """However the peer leaves, tasks in `receive`, `ping`, `wait_closed` and a blocked `send` end
    with the same story."""
    near, far = socket_pair()
    peer = RawPeer(far)
    stories: list[Close] = []
    with trio.fail_after(LONG):
        async with open_websocket(near, limits=LIMITS) as ws:

            async def wait(call: Callable[[], Awaitable[object]]) -> None:
                with pytest.raises(ConnectionClosed) as info:
                    while True:
                        await call()
                stories.append(info.value.close)

            async def wait_closed() -> None:
                stories.append(await ws.wait_closed())

            async with trio.open_nursery() as nursery:
                for call in (ws.receive, ws.ping, lambda: ws.send(b"x" * 100_000)):
                    nursery.start_soon(wait, call)
                nursery.start_soon(wait_closed)
                await trio.testing.wait_all_tasks_blocked()
                if how == "close":
                    await peer.send_close(4000)
                    await peer.read_to_end()
                elif how == "rst":
                    reset(far)
                await peer.aclose()
            assert len(stories) == 4
            assert all(story is ws.closed for story in stories)
            assert stories[0].code == (4000 if how == "close" else 1006)


@pytest.mark.row("C8")
async def test_cancelling_tells_live_and_deaf_peers_within_one_grace() -> None:
    """A handler blocked in `send` to a peer that does not read does not delay the others' 1001."""

    async def handler(ws: WebSocket) -> None:
        if await ws.receive() == "flood me":
            while True:
                await ws.send(b"x" * 100_000)
        await ws.receive()

    told: list[int] = []

    async def listen(peer: RawPeer) -> None:
        told.append((await peer.expect_close()).close_code)
        await peer.send_close(1001)
        await peer.expect_eof()

    with trio.fail_after(LONG):
        async with trio.open_nursery() as nursery:
            async with serving(handler) as server:
                deaf = [await dial(server) for _ in range(3)]
                live = [await dial(server) for _ in range(3)]
                for peer in deaf:
                    await peer.send_message("flood me")
                    await peer.receive_frame()
                for peer in live:
                    await peer.send_message("hello")
                    nursery.start_soon(listen, peer)
                await trio.sleep(0.1)
                start = trio.current_time()
            assert LIMITS.cancel_grace <= trio.current_time() - start < LONG / 2
    assert told == [1001] * 3
    for peer in (*deaf, *live):
        await peer.aclose()
