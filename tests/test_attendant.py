"""The attendant at work: neglected connections are looked after, dead peers leave, others stay.

Lives here: whole servers on the mock clock, over memory streams, TLS and sockets. Must never live
here: the arithmetic of the clocks (see test_vigil).
"""

from __future__ import annotations

import gc
import logging
import socket
import ssl
import struct
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import trio
import trio.testing

from trio_ws import ConnectionClosed, ConnectionLost, Limits, WebSocket, serve_listeners
from trio_ws import serve_stream as serve_one
from trio_ws._attendant import SLICE, Attendant
from trio_ws._connection import Connection
from trio_ws._services import open_services
from trio_ws.testing import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    RawPeer,
    StallingStream,
    WrappedStream,
    encode_frame,
    open_websocket,
    parse_frames,
)

Clock = trio.testing.MockClock
Handler = Callable[[WebSocket], Awaitable[None]]
Pair = Callable[[], tuple[trio.abc.Stream, trio.abc.Stream]]

FRAME = encode_frame(BINARY, b"x" * 1000, masked=True)


def sockets() -> tuple[trio.SocketStream, trio.SocketStream]:
    """Two ends of a socket pair: the kernel delivers at once, so the mock clock may jump."""
    near, far = socket.socketpair()
    for each in (near, far):
        each.setblocking(False)
    return (
        trio.SocketStream(trio.socket.from_stdlib_socket(near)),
        trio.SocketStream(trio.socket.from_stdlib_socket(far)),
    )


@pytest.fixture(params=["memory", "sockets", "tls"])
def pair(
    request: pytest.FixtureRequest,
    server_ssl_context: ssl.SSLContext,
    client_ssl_context: ssl.SSLContext,
) -> Pair:
    """How a server's stream and its client's are made; TLS shakes hands at the first byte."""

    def tls() -> tuple[trio.abc.Stream, trio.abc.Stream]:
        near, far = trio.testing.memory_stream_pair()
        return (
            trio.SSLStream(near, server_ssl_context, server_side=True, https_compatible=True),
            trio.SSLStream(
                far, client_ssl_context, server_hostname="localhost", https_compatible=True
            ),
        )

    return {"memory": trio.testing.memory_stream_pair, "sockets": sockets, "tls": tls}[
        request.param
    ]


@asynccontextmanager
async def served(
    handler: Handler, streams: tuple[trio.abc.Stream, trio.abc.Stream], **limits: Any
) -> AsyncIterator[RawPeer]:
    """`serve_stream` over one stream, and the raw client at the other; at the end the client is
    gone, and the server has to be, too."""
    near, far = streams
    with trio.fail_after(10_000):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(serve_one, handler, near, limits=Limits(**limits)))
            try:
                peer = RawPeer(far)
                await peer.request()
                yield peer
            finally:
                with trio.CancelScope(shield=True):
                    await trio.aclose_forcefully(far)
            nursery.cancel_scope.cancel()


class Sleeper:
    """A handler that leaves its connection alone, and knows how it ended."""

    def __init__(self) -> None:
        self.ws: WebSocket | None = None

    async def __call__(self, ws: WebSocket) -> None:
        self.ws = ws
        await trio.sleep_forever()

    @property
    def closed(self) -> Any:
        return self.ws and self.ws.closed


async def answering(peer: RawPeer) -> None:
    """A healthy client: it answers pings and the Close."""
    try:
        while True:
            frame = await peer.receive_frame()
            if frame.opcode == PING:
                await peer.send_pong(frame.payload)
            elif frame.opcode == CLOSE:
                await peer.send_close(1000)
    except (trio.EndOfChannel, trio.BrokenResourceError, trio.ClosedResourceError):
        pass


# -- neglected connections -----------------------------------------------------------------------


async def test_pings_are_answered_while_the_handler_is_busy(
    pair: Pair, autojump_clock: Clock
) -> None:
    """Within a tick, whenever they come, also right after a message was received."""
    began: list[float] = []

    async def handler(ws: WebSocket) -> None:
        while True:
            await ws.receive()
            began.append(trio.current_time())
            await trio.sleep(30)

    async with served(handler, pair()) as peer:
        await peer.send_message("work")
        for number in range(12):
            await peer.send_ping(b"%d" % number)
            sent = trio.current_time()
            while (await peer.receive_frame()).payload != b"%d" % number:
                pass
            assert trio.current_time() - sent <= 1
            await trio.sleep(0.37 * number)
            if number % 3 == 0:
                await peer.send_message("more")
        assert began


async def test_a_close_is_answered_while_the_handler_sleeps(
    pair: Pair, autojump_clock: Clock
) -> None:
    """D17 with a busy handler beside it: echo and end of the stream within a tick."""
    handler = Sleeper()
    async with served(handler, pair()) as peer:
        await trio.sleep(10)
        await peer.send_close(1000, "bye")
        sent = trio.current_time()
        await peer.expect_close(1000)
        await peer.expect_eof()
        assert trio.current_time() - sent <= 1
        assert handler.closed.reason == "bye"


async def test_a_handler_that_only_sends_hears_of_a_close(
    pair: Pair, autojump_clock: Clock
) -> None:
    """By its next `send`, within a tick."""
    ended: list[tuple[float, int]] = []

    async def handler(ws: WebSocket) -> None:
        try:
            while True:
                await ws.send("tick")
                await trio.sleep(0.1)
        except ConnectionClosed as exc:
            ended.append((trio.current_time(), exc.close.code))
            raise

    async with served(handler, pair()) as peer:
        await trio.sleep(3)
        await peer.send_close(1001)
        sent = trio.current_time()
        await peer.expect_close(1001)
        await peer.expect_eof()
        await trio.sleep(0.2)
        assert [code for _, code in ended] == [1001]
        assert ended[0][0] - sent <= 1.2


async def test_a_ping_behind_hundreds_of_messages_is_answered_at_the_same_tick(
    pair: Pair, autojump_clock: Clock
) -> None:
    """What one read brought is parsed to its end, in several goes, and not a go a tick."""
    async with served(Sleeper(), pair()) as peer:
        await peer.send_raw(encode_frame(BINARY, b"x", masked=True) * 400)
        await peer.send_ping(b"behind")
        sent = trio.current_time()
        await peer.expect(PONG, b"behind")
        assert trio.current_time() - sent <= 2


async def test_the_background_driver_steps_aside(autojump_clock: Clock) -> None:
    """It reads for a busy handler; from the handler's second `receive` on, the handler's own task
    reads again."""
    readers: list[trio.lowlevel.Task] = []

    class Watched(WrappedStream):
        async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
            readers.append(trio.lowlevel.current_task())
            return await super().receive_some(max_bytes)

    async def handler(ws: WebSocket) -> None:
        await trio.sleep(5)
        del readers[1:]
        for _ in range(5):
            await ws.receive()
        me = trio.lowlevel.current_task()
        readers.append(me)
        assert readers[-4:] == [me] * 4
        await ws.send("done")

    near, far = trio.testing.memory_stream_pair()
    async with served(handler, (Watched(near), far)) as peer:
        await trio.sleep(3)
        assert readers
        for _ in range(5):
            await trio.sleep(1)
            await peer.send_message("x")
        assert await peer.receive_message() == "done"


async def test_reading_ahead_has_its_bound(autojump_clock: Clock) -> None:
    """The attendant stops at `read_ahead`, with whole messages and inside a large one."""
    for first in (FRAME, encode_frame(BINARY, b"x", fin=False, masked=True)):
        near, far = trio.testing.memory_stream_pair()
        watched = WrappedStream(near)
        part = encode_frame(CONTINUATION, b"x" * 60_000, fin=False, masked=True)
        async with served(Sleeper(), (watched, far), max_message=2**31, max_fragments=None) as peer:
            before = watched.received
            for _ in range(100):
                await peer.send_raw(FRAME * 60 if first is FRAME else first)
                first = first if first is FRAME else part  # noqa: PLW2901
            await trio.sleep(30)
            assert 60_000 <= watched.received - before <= 2 * 64 * 1024 + 60_000


# -- dead peers, and others ----------------------------------------------------------------------


@pytest.mark.row("E6")
async def test_a_healthy_peer_of_a_busy_handler_stays(pair: Pair, autojump_clock: Clock) -> None:
    """For three ping timeouts and more: its pongs are read, and make `latency`."""

    async def handler(ws: WebSocket) -> None:
        await trio.sleep(3 * 20 + 50)
        assert ws.latency is not None
        assert 0 <= ws.latency <= 1
        await ws.send("still here")

    async with served(handler, pair()) as peer:
        while (frame := await peer.receive_frame()).opcode == PING:
            await peer.send_pong(frame.payload)
        assert frame.payload == b"still here"
        assert len([each for each in peer.frames if each.opcode == PING]) >= 4


@pytest.mark.row("E8")
@pytest.mark.parametrize("busy", [False, True], ids=["receiving", "busy"])
async def test_a_silent_peer_is_lost_at_interval_plus_timeout(
    busy: bool, pair: Pair, autojump_clock: Clock
) -> None:
    """At 40 s, at most one tick later, never earlier; whoever waits wakes, the stream is closed."""
    lost: list[ConnectionLost] = []
    times: list[float] = []

    async def handler(ws: WebSocket) -> None:
        began = trio.current_time()
        try:
            await (ws.wait_closed() if busy else ws.receive())
            await ws.send("?")
        except ConnectionLost as exc:
            lost.append(exc)
        times.append(trio.current_time() - began)

    streams = pair()
    async with served(handler, streams) as peer:
        frames = await peer.read_to_end()
        assert [frame.opcode for frame in frames] == [PING, CLOSE]
        assert frames[1].close_code == 1011
        await trio.testing.wait_all_tasks_blocked()
        assert 40 <= times[0] <= 41
        assert lost[0].close.code == 1006
        assert isinstance(lost[0].__cause__, TimeoutError)
        if isinstance(streams[0], trio.SocketStream):
            assert streams[0].socket.fileno() == -1


@pytest.mark.row("E9")
async def test_a_blocked_send_is_released(autojump_clock: Clock) -> None:
    """By the second clock, with everyone behind it; nothing of what waited is sent later."""
    for streams in (sockets(), trio.testing.lockstep_stream_pair()):
        released: list[float] = []

        async def handler(ws: WebSocket, released: list[float] = released) -> None:
            began = trio.current_time()

            async def sender() -> None:
                with pytest.raises(ConnectionLost):
                    while True:
                        await ws.send(bytes(50_000))
                released.append(trio.current_time() - began)

            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(sender)

        async with served(handler, streams):
            await trio.sleep(100)
            assert len(released) == 3
            assert all(20 <= seconds <= 22 for seconds in released)


@pytest.mark.row("E4")
async def test_a_deaf_and_chatty_peer_is_lost(autojump_clock: Clock) -> None:
    """It floods us with pings and reads no pong: lost after `ping_timeout` without progress."""
    for streams in (sockets(), trio.testing.lockstep_stream_pair()):
        handler = Sleeper()
        async with served(handler, streams) as peer:
            began = trio.current_time()
            with pytest.raises((trio.BrokenResourceError, trio.ClosedResourceError)):
                while True:
                    for _ in range(200):
                        await peer.send_ping(b"x" * 125)
                    await trio.sleep(0.25)
            assert 20 <= trio.current_time() - began <= 40
            assert handler.closed.code == 1006


@pytest.mark.row("E14")
@pytest.mark.parametrize("kind", ["sockets", "stream"])
async def test_a_slow_healthy_peer_gets_its_mebibyte(kind: str, autojump_clock: Clock) -> None:
    """20 KB a second, and no word from it until it has all: over 50 s, with the default clocks."""
    size, rate = 1024 * 1024, 20_000

    async def handler(ws: WebSocket) -> None:
        await ws.send(bytes(size))
        await ws.receive()

    near: trio.abc.Stream
    far: trio.abc.Stream
    valve: StallingStream | None = None
    if kind == "sockets":
        near, far = sockets()
    else:
        memory, far = trio.testing.memory_stream_pair()
        near = valve = StallingStream(memory, after=1000)
    async with served(handler, (near, far)) as peer:
        got, began = len(peer.received_bytes), trio.current_time()  # some came with the 101
        while got < size:
            if valve is not None:
                valve.release(rate)
            await trio.sleep(1)
            got += len(await peer.stream.receive_some(rate))
        assert trio.current_time() - began > 40
        if valve is not None:
            valve.release()
        await peer.send_message("thank you")


async def test_no_verdict_while_reading_is_paused(autojump_clock: Clock) -> None:
    """A handler that does not receive for an hour: its healthy peer stays, its words wait."""
    for streams in (sockets(), trio.testing.memory_stream_pair()):

        async def handler(ws: WebSocket) -> None:
            await trio.sleep(3600)
            for _ in range(100):
                await ws.receive()
            await ws.send("all here")

        async with served(handler, streams) as peer:
            await peer.send_raw(FRAME * 100)
            while (frame := await peer.receive_frame()).opcode == PING:
                await peer.send_pong(frame.payload)
            assert frame.payload == b"all here"


async def test_a_dead_peer_inside_a_large_message_is_lost(autojump_clock: Clock) -> None:
    """More of it came than `read_ahead`, and `receive` waits for the rest: that is no pause."""
    ended: list[float] = []

    async def handler(ws: WebSocket) -> None:
        with pytest.raises(ConnectionLost):
            await ws.receive()
        ended.append(trio.current_time())

    async with served(handler, trio.testing.memory_stream_pair()) as peer:
        began = trio.current_time()
        await peer.send_raw(encode_frame(BINARY, bytes(100_000), fin=False, masked=True))
        await peer.read_to_end()
        await trio.testing.wait_all_tasks_blocked()
        assert 40 <= ended[0] - began <= 42


# -- ends that are no fault ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "reason", "at"),
    [
        ({"idle_timeout": 30}, "idle timeout", 35),
        ({"max_lifetime": 60}, "maximum lifetime reached", 60),
    ],
    ids=["idle", "lifetime"],
)
async def test_the_idle_and_the_old_are_closed_politely(
    limits: dict[str, float], reason: str, at: float, pair: Pair, autojump_clock: Clock
) -> None:
    """1001 and a reason, the closing handshake, no loss: a message counts against idleness, pings
    and pongs do not."""
    handler = Sleeper()
    async with served(handler, pair(), **limits) as peer:
        began = trio.current_time()
        one_at_a_time = trio.Lock()
        async with trio.open_nursery() as nursery:

            async def talk() -> None:
                await trio.sleep(5)
                async with one_at_a_time:
                    await peer.send_message("hello")
                await trio.sleep(20)
                async with one_at_a_time:
                    await peer.send_ping()

            nursery.start_soon(talk)
            while (frame := await peer.receive_frame()).opcode != CLOSE:
                if frame.opcode == PING:
                    async with one_at_a_time:
                        await peer.send_pong(frame.payload)
        assert at <= trio.current_time() - began <= at + 2
        assert (frame.close_code, frame.close_reason) == (1001, reason)
        await peer.send_close(1001)
        await peer.expect_eof()
        assert handler.closed.initiator == "local"


async def test_a_message_on_its_way_is_not_idle(autojump_clock: Clock) -> None:
    """A slow stream of pieces, either way, longer than `idle_timeout`."""

    async def handler(ws: WebSocket) -> None:
        async with ws.message_reader() as chunks:
            async for _ in chunks:
                pass
        async with ws.message_writer("binary") as out:
            for _ in range(10):
                await out.send(b"x")
                await trio.sleep(5)

    limits = {"idle_timeout": 12, "ping_interval": None}
    async with served(handler, trio.testing.memory_stream_pair(), **limits) as peer:
        for number in range(10):
            await peer.send_frame(CONTINUATION if number else BINARY, b"x", fin=number == 9)
            await trio.sleep(5)
        assert await peer.receive_message() == b"x" * 10


async def test_an_eof_that_nobody_asks_about_ends_sending(autojump_clock: Clock) -> None:
    """After `close_timeout`; until then replies go out."""
    for streams in (sockets(), trio.testing.memory_stream_pair()):
        sent: list[float] = []

        async def handler(ws: WebSocket, sent: list[float] = sent) -> None:
            with pytest.raises(ConnectionLost):
                while True:
                    await ws.send("x")
                    sent.append(trio.current_time())
                    await trio.sleep(0.5)

        async with served(handler, streams) as peer:
            await trio.sleep(0.1)
            await peer.send_eof()
            half_closed = trio.current_time()
            await peer.read_to_end()
            assert 5 <= sent[-1] - half_closed <= 7


# -- the kernel is asked about sockets that may not be read ---------------------------------------


async def tcp_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    far = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
    near = await listener.accept()
    await listener.aclose()
    return near, far


@pytest.mark.row("C11")
@pytest.mark.parametrize("how", ["reset", "fin"])
async def test_read_ahead_full_and_the_peer_gone(how: str) -> None:
    """RST: the connection is lost. FIN: who waits for the end hears of it; `receive` still yields
    what had been read."""
    received: list[str | bytes] = []
    full, over = trio.Event(), trio.Event()

    async def handler(ws: WebSocket) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ws.wait_closed)
            nursery.start_soon(expect_lost, ws.ping)
            await trio.testing.wait_all_tasks_blocked(0.01)
            full.set()
        with pytest.raises(ConnectionLost):
            while True:
                received.append(await ws.receive())
        over.set()

    async def expect_lost(call: Callable[[], Awaitable[object]]) -> None:
        with pytest.raises(ConnectionLost):
            await call()

    near, far = await tcp_pair()
    with trio.fail_after(10):
        async with served(handler, (near, far), ping_interval=0.2, ping_timeout=30) as peer:
            await peer.send_raw(FRAME * 100)
            await full.wait()
            if how == "reset":
                linger = struct.pack("ii", 1, 0)
                far.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                far.socket.close()
            else:
                await far.send_eof()
            await over.wait()
    assert 60 <= len(received) <= 100
    assert set(received) == {b"x" * 1000}


# -- the attendant itself ------------------------------------------------------------------------


async def test_without_connections_there_is_no_clock() -> None:
    """Nobody sleeps for a tick when nobody is to be looked after: the mock clock has nothing to
    jump to, before the first connection and after the last."""

    def deadline() -> float:
        return trio.lowlevel.current_statistics().seconds_to_next_deadline

    listener = trio.testing.memory_stream_pair()
    async with open_services() as services:
        attendant = Attendant(Limits(ping_interval=0.04), services)
        await trio.testing.wait_all_tasks_blocked()
        before = deadline()
        connection = Connection(listener[0], client=False, limits=Limits(), services=services)
        attendant.watch(connection)
        await trio.testing.wait_all_tasks_blocked(0.001)
        assert deadline() <= 0.01
        connection.kill()
        await connection.wait_gone()
        while deadline() < 1:  # its last tick
            await trio.testing.wait_all_tasks_blocked(0.011)
        assert deadline() > 1
        assert before > 1


async def test_the_dead_are_not_remembered(autojump_clock: Clock) -> None:
    """A second after its end nothing holds a connection any more, not even the last one."""
    async with open_services() as services:
        attendant = Attendant(Limits(), services)
        near, _ = trio.testing.memory_stream_pair()
        stream = WrappedStream(near)
        gone = weakref.ref(stream)
        connection = Connection(stream, client=False, limits=Limits(), services=services)
        attendant.watch(connection)
        await trio.sleep(3)
        connection.kill()
        await connection.wait_gone()
        await trio.sleep(2)
        del connection, stream, near, _
        gc.collect()
        assert gone() is None


async def test_one_bad_connection_costs_no_other(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """A failure while it is looked after ends that connection, with the failure as its cause; the
    next one is looked after at the same tick."""

    class Bad(Connection):
        __slots__ = ()

        @property
        def spoken(self) -> int:
            raise ArithmeticError

    async with open_services() as services:
        attendant = Attendant(Limits(), services)
        peers = []
        connections = []
        for kind in (Bad, Connection):
            near, far = trio.testing.memory_stream_pair()
            peers.append(RawPeer(far))
            connections.append(kind(near, client=False, limits=Limits(), services=services))
            attendant.watch(connections[-1])
        await peers[1].send_ping(b"me too")
        began = trio.current_time()
        await peers[1].expect(PONG, b"me too")
        assert trio.current_time() - began <= 1
        await connections[0].wait_gone()
        assert isinstance(connections[0].cause, ArithmeticError)
        assert len([r for r in caplog.records if r.levelno == logging.ERROR]) == 1
        await trio.sleep(5)
        await peers[1].send_ping(b"still")
        await peers[1].expect(PONG, b"still")
        connections[1].kill()
        await connections[1].wait_gone()


async def test_many_connections_are_looked_at_in_slices(autojump_clock: Clock) -> None:
    """Between two slices other tasks run."""
    count = 5 * SLICE
    turns: list[int] = []
    looked = 0
    begun = trio.Event()

    class Counting(Connection):
        __slots__ = ()

        @property
        def spoken(self) -> int:
            nonlocal looked
            looked += 1
            begun.set()
            return 0

    async def neighbour() -> None:
        await begun.wait()
        while looked < count:
            turns.append(looked)
            await trio.lowlevel.checkpoint()

    async with open_services() as services, trio.open_nursery() as nursery:
        attendant = Attendant(Limits(), services)
        connections = []
        for _ in range(count):
            near, _far = trio.testing.memory_stream_pair()
            connections.append(Counting(near, client=False, limits=Limits(), services=services))
            attendant.watch(connections[-1])
        nursery.start_soon(neighbour)
        await trio.sleep(1.5)
        steps = {later - earlier for earlier, later in pairwise(turns)}
        assert max(steps) <= 2 * SLICE, "a slice, or two where tasks change their order"
        for connection in connections:
            connection.kill()


@pytest.mark.parametrize("seconds", [60, 3600])
async def test_a_stopped_process_kills_nobody(seconds: int, mock_clock: Clock) -> None:
    """The clock jumps while a pong is there to be read: the peer stays, whichever task runs first
    afterwards."""

    async def step(amount: float = 1.0) -> None:
        await trio.testing.wait_all_tasks_blocked(0.001)
        mock_clock.jump(amount)
        await trio.testing.wait_all_tasks_blocked(0.001)

    for _ in range(20):  # the order of tasks is chance
        near, far = socket.socketpair()
        near.setblocking(False)
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(near))
        with far:
            async with open_services() as services:
                connection = Connection(stream, client=False, limits=Limits(), services=services)
                services.start(partial(connection.reader.until, lambda: False))
                Attendant(Limits(), services).watch(connection)
                for _ in range(23):
                    await step()
                frames, _rest = parse_frames(far.recv(1000), masked=False)
                assert [frame.opcode for frame in frames] == [PING]
                # Both before any task runs: the pong arrives, and the time has passed.
                far.sendall(encode_frame(PONG, frames[0].payload, masked=True))
                mock_clock.jump(seconds)
                for _ in range(5):
                    await step()
                assert connection.closed is None
                assert connection.pings.latency is not None
                connection.kill()


async def test_pings_that_are_never_answered_are_not_kept(autojump_clock: Clock) -> None:
    """A peer that talks every now and then and sends no pong: one ping is remembered, the last."""
    handler = Sleeper()
    async with served(handler, sockets(), max_message=100) as peer:
        pings = []
        for _ in range(50):
            await trio.sleep(25)
            await peer.send_pong(b"unasked")
            pings.append(await peer.expect(PING))
        assert handler.ws is not None
        assert handler.ws.latency is None
        await peer.send_pong(pings[0].payload)
        await trio.sleep(2)
        assert handler.ws.latency is None, "the first one is forgotten"
        await peer.send_pong(pings[-1].payload)
        await trio.sleep(2)
        assert handler.ws.latency is not None


async def test_many_peers_of_one_server_have_one_attendant(autojump_clock: Clock) -> None:
    """Fifty connections: the silent half is lost, the healthy half stays, no task for each."""
    open_ones: set[WebSocket] = set()

    async def handler(ws: WebSocket) -> None:
        open_ones.add(ws)
        try:
            await ws.receive()
        except ConnectionLost:
            pass
        finally:
            open_ones.discard(ws)

    with trio.fail_after(1000):
        async with trio.open_nursery() as nursery:
            connect = trio.testing.open_stream_to_socket_listener
            listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
            nursery.start_soon(partial(serve_listeners, handler, [listener]))
            peers = [RawPeer(await connect(listener)) for _ in range(50)]
            for number, peer in enumerate(peers):
                await peer.request()
                if number % 2:
                    nursery.start_soon(answering, peer)
            await trio.sleep(43)
            assert len(open_ones) == 25
            for peer in peers:
                await trio.aclose_forcefully(peer.stream)
            nursery.cancel_scope.cancel()


async def test_the_kit_has_no_attendant(autojump_clock: Clock) -> None:
    """`open_websocket` looks after nothing: what a test sees there is the calls' own doing."""
    near, far = trio.testing.memory_stream_pair()
    async with open_websocket(near) as ws:
        await trio.sleep(1000)
        assert ws.closed is None
        await trio.aclose_forcefully(far)
