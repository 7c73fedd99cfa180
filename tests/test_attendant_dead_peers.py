"""Dead and deaf peers are lost in time; slow, paused and healthy ones stay.

Lives here: keepalive of whole servers on the mock clock, over memory streams, TLS and sockets. Must
never live here: the arithmetic of the clocks (see test_vigil).
"""

from __future__ import annotations

import socket
from functools import partial

import pytest
import trio
import trio.testing

from trio_ws import ConnectionLost, Limits, WebSocket
from trio_ws._attendant import Attendant
from trio_ws._connection import Connection
from trio_ws._services import open_services
from trio_ws.testing import BINARY, CLOSE, PING, PONG, StallingStream, encode_frame, parse_frames

from .attendant_world import FRAME, Clock, Pair, Sleeper, served, sockets


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


@pytest.mark.parametrize("seconds", [60, 3600])
async def test_a_stopped_process_kills_nobody(seconds: int, mock_clock: Clock) -> None:
    """The clock jumps while a pong is there to be read: the peer stays, whichever task runs first
    afterwards."""

    async def step(amount: float = 1.0) -> None:
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(amount)
        await trio.testing.wait_all_tasks_blocked()

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
