"""Cancellation at every step: nothing torn, nothing lost, nothing stuck, nothing swallowed.

Lives here: sweeps over each public await of `WebSocket`, over memory, TLS and socket transports
that take a few bytes a call and stall. Must never live here: what an ending means (see
test_close_races), or a handler (see test_cancellation_serving).
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import trio
import trio.testing

from trio_ws import ConnectionClosed, Limits, WebSocket
from trio_ws.testing import (
    CLOSE,
    PING,
    ChunkedStream,
    RawPeer,
    StallingStream,
    SweepReport,
    Target,
    cancel_at_every_step,
    open_websocket,
    parse_frames,
)

A, B, C = b"a" * 40, "b" * 30, b"c" * 20
SMALL = Limits(max_outbox=48)


@dataclass
class Stage:
    """A server's WebSocket, and the client's end in the hands of the test."""

    ws: WebSocket
    peer: RawPeer
    is_closed: Callable[[], bool]


async def answer(peer: RawPeer, *, silent: bool = False) -> None:
    """Read all there is; answer pings and the Close, unless silent."""
    try:
        while True:
            frame = await peer.receive_frame()
            if silent:
                continue
            if frame.opcode == PING:
                await peer.send_pong(frame.payload)
            elif frame.opcode == CLOSE:
                await peer.send_close(1000)
    except (trio.EndOfChannel, trio.BrokenResourceError, trio.ClosedResourceError):
        pass


class SocketProbe:
    """Whether what a socket has delivered so far, read or not, ends inside a frame."""

    def __init__(self, peer: RawPeer, far: socket.socket) -> None:
        self.peer, self.far = peer, far

    @property
    def mid_write(self) -> bool:
        try:
            waiting = self.far.recv(1 << 20, socket.MSG_PEEK)
        except OSError:
            waiting = b""
        return parse_frames(self.peer.received_bytes + waiting, masked=False)[1] != b""


Transport = Callable[[Target], Awaitable[tuple[trio.abc.Stream, RawPeer, Callable[[], bool]]]]


async def memory(target: Target) -> tuple[trio.abc.Stream, RawPeer, Callable[[], bool]]:
    """Seven bytes a call; a stall inside the first frame, over after a (virtual) second."""
    near, far = trio.testing.memory_stream_pair()
    chunked = ChunkedStream(StallingStream(near, after=10, seconds=1), 7)
    target.watch(chunked)
    return chunked, RawPeer(ChunkedStream(far, 5)), lambda: chunked.closed


def tls(server: ssl.SSLContext, client: ssl.SSLContext) -> Transport:
    """TLS on the same bad transport; the TLS handshake is done."""

    async def make(target: Target) -> tuple[trio.abc.Stream, RawPeer, Callable[[], bool]]:
        near, far = trio.testing.memory_stream_pair()
        stalling = StallingStream(near, after=1 << 20, seconds=1)
        chunked = ChunkedStream(stalling, 1 << 16)
        target.watch(chunked)
        inner = trio.SSLStream(chunked, server, server_side=True, https_compatible=True)
        outer = trio.SSLStream(far, client, server_hostname="localhost", https_compatible=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(inner.do_handshake)
            nursery.start_soon(outer.do_handshake)
        stalling.stall()
        stalling.release(20)
        chunked.size = 24
        return inner, RawPeer(outer), lambda: chunked.closed

    return make


async def sockets(target: Target) -> tuple[trio.abc.Stream, RawPeer, Callable[[], bool]]:
    """A pair of real sockets, so that the descriptor is used; a few KiB fit between them."""
    left, right = socket.socketpair()
    for each in (left, right):
        each.setblocking(False)
        each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # the kernel's minimum
    near = trio.SocketStream(trio.socket.from_stdlib_socket(left))
    far = trio.SocketStream(trio.socket.from_stdlib_socket(right))
    peer = RawPeer(ChunkedStream(far, 999))
    target.watch(SocketProbe(peer, right))
    return near, peer, lambda: near.socket.fileno() < 0


@pytest.fixture(params=["memory", "tls", "sockets"])
def transport(
    request: pytest.FixtureRequest,
    server_ssl_context: ssl.SSLContext,
    client_ssl_context: ssl.SSLContext,
) -> Transport:
    """Each scenario runs on each."""
    if request.param == "tls":
        return tls(server_ssl_context, client_ssl_context)
    return memory if request.param == "memory" else sockets


@asynccontextmanager
async def stage(
    transport: Transport, target: Target, *, limits: Limits = SMALL, silent: bool = False
) -> AsyncIterator[Stage]:
    """Open one, let the peer answer beside it, and check the transcript at the end (I1, I2)."""
    stream, peer, is_closed = await transport(target)
    try:
        async with trio.open_nursery() as nursery:
            async with open_websocket(stream, limits=limits) as ws:
                nursery.start_soon(lambda: answer(peer, silent=silent))
                yield Stage(ws, peer, is_closed)
            assert is_closed(), "the stream is closed when its owner is done"
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    finally:
        await trio.aclose_forcefully(peer.stream)


def show(report: SweepReport) -> None:
    print(report)
    assert report.points, "nothing was cancelled"
    assert report.delivered, "no parked task was hit"


@pytest.mark.row("C1", "C2")
def test_send_is_atomic(transport: Transport) -> None:
    """What `send` returned for arrives whole and in order; what it raised Cancelled for leaves no
    byte; the next `send` goes out whole."""

    scale = 300 if transport is sockets else 1

    async def scenario(target: Target) -> None:
        returned: list[str | bytes] = []
        async with stage(transport, target) as on:
            async with target:
                for message in (A, B, C):
                    await on.ws.send(message * scale)
                    returned.append(message * scale)
                await trio.sleep(3)  # points while the flusher is inside a frame
            await on.ws.send("again")
            returned.append("again")
        assert on.peer.messages == returned
        assert on.peer.frames[-1].opcode == CLOSE
        assert not on.peer.partial

    report = cancel_at_every_step(scenario)
    show(report)
    assert report.partial_writes


@pytest.mark.row("C1")
def test_a_send_that_waits_for_room_leaves_nothing_behind(transport: Transport) -> None:
    """Cancelled above the high-water mark: the waiting messages never appear, those before do."""
    size = 9000 if transport is sockets else 20

    async def scenario(target: Target) -> None:
        returned: list[str | bytes] = []
        async with stage(transport, target, limits=Limits(max_outbox=1)) as on:

            async def sender(message: bytes) -> None:
                await on.ws.send(message)
                returned.append(message)

            async with target:
                async with trio.open_nursery() as nursery:
                    for number in range(4):
                        nursery.start_soon(sender, bytes([number]) * size)
            await on.ws.send("again")
        assert on.peer.messages == [*returned, "again"]

    report = cancel_at_every_step(scenario)
    print(report)
    assert report.points


@pytest.mark.row("C4")
def test_receive_loses_and_repeats_nothing(transport: Transport) -> None:
    """However often `receive` is cancelled, the messages are all there, once and in order."""
    wanted: list[str | bytes] = [A, B, "", C, "ü" * 9]

    async def scenario(target: Target) -> None:
        got: list[str | bytes] = []
        async with stage(transport, target) as on:
            async with trio.open_nursery() as nursery:

                async def talk() -> None:
                    for message in wanted:
                        await on.peer.send_message(message)
                        await trio.sleep(0.1)

                nursery.start_soon(talk)
                async with target:
                    while len(got) < len(wanted):
                        got.append(await on.ws.receive())
                while len(got) < len(wanted):
                    got.append(await on.ws.receive())
        assert got == wanted

    show(cancel_at_every_step(scenario))


@pytest.mark.row("C4", "C11")
@pytest.mark.parametrize("call", ["receive", "ping", "wait_closed"])
def test_a_cancelled_waiter_hands_over(transport: Transport, call: str) -> None:
    """Three tasks wait; whichever is cancelled, and whoever drove, the other two are served."""

    async def scenario(target: Target) -> None:
        async with stage(transport, target) as on:
            ws = on.ws
            calls: dict[str, Callable[[], Awaitable[object]]] = {
                "receive": ws.receive,
                "ping": ws.ping,
                "wait_closed": ws.wait_closed,
            }
            victim = calls.pop(call)
            served: list[object] = []

            async def serve_rest(other: Callable[[], Awaitable[object]]) -> None:
                served.append(await other())

            async with trio.open_nursery() as nursery:
                for other in calls.values():
                    nursery.start_soon(serve_rest, other)

                async def talk() -> None:
                    await trio.sleep(2)
                    await on.peer.send_message(A)
                    await trio.sleep(1)
                    await on.peer.send_close(1000, "bye")

                nursery.start_soon(talk)
                async with target:
                    await victim()
            assert len(served) == 2
            assert (await ws.wait_closed()).reason == "bye"

    show(cancel_at_every_step(scenario))


def test_a_cancelled_ping_is_forgotten(transport: Transport) -> None:
    """The connection is intact: another ping, and a message, go through."""

    async def scenario(target: Target) -> None:
        async with stage(transport, target) as on:
            async with target:
                await on.ws.ping()
            assert await on.ws.ping() >= 0
            await on.ws.send("fine")
        assert on.peer.messages == ["fine"]

    report = cancel_at_every_step(scenario)
    show(report)


def test_a_cancelled_wait_closed_is_forgotten(transport: Transport) -> None:
    """The connection is intact, and the message that arrived meanwhile is there to be received."""

    async def scenario(target: Target) -> None:
        async with stage(transport, target) as on:
            await on.peer.send_message("early")
            async with target:
                with trio.move_on_after(1):
                    await on.ws.wait_closed()
            assert on.ws.closed is None
            assert await on.ws.receive() == "early"

    show(cancel_at_every_step(scenario, repeats=8))


@pytest.mark.row("C5")
@pytest.mark.parametrize("silent", [False, True], ids=["live", "silent"])
@pytest.mark.parametrize("call", ["close", "aclose"])
def test_a_cancelled_close_closes(transport: Transport, call: str, silent: bool) -> None:
    """Cancelled at any step, `close` has closed the stream, at once, and Cancelled goes on; left
    alone it ends within `close_timeout`. Behind it every call raises ConnectionClosed."""

    async def scenario(target: Target) -> None:
        async with stage(transport, target, silent=silent) as on:
            await on.ws.send(A)
            start = trio.current_time()
            async with target:
                await getattr(on.ws, call)()
            assert on.is_closed()
            assert on.ws.closed is not None
            assert trio.current_time() - start <= SMALL.close_timeout
            if target.cancelled:
                assert trio.current_time() == target.fired_at
            for again in (on.ws.receive, on.ws.ping, lambda: on.ws.send("x")):
                with pytest.raises(ConnectionClosed) as info:
                    await again()
                assert isinstance(info.value, trio.ClosedResourceError)
                assert info.value.close is on.ws.closed

    report = cancel_at_every_step(scenario)
    show(report)
