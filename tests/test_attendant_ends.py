"""Ends that are no fault of the peer's, and ends that only the kernel knows of.

Lives here: idleness, lifetime, half-closed and paused sockets. Must never live here: keepalive
(test_attendant_dead_peers).
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from trio_ws import ConnectionLost, WebSocket
from trio_ws.testing import BINARY, CLOSE, CONTINUATION, PING

from .attendant_world import FRAME, Clock, Pair, Sleeper, served, sockets

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


# -- the kernel is asked about sockets that may not be read --------------------------------------


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
