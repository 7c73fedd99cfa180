"""The attendant itself: no clock without connections, slices, one for a server, nothing kept.

Lives here: `Attendant` on the mock clock. Must never live here: what it does for one connection
(the other files of this name), the arithmetic of the clocks (see test_vigil).
"""

from __future__ import annotations

import gc
import logging
import weakref
from functools import partial
from itertools import pairwise

import pytest
import trio
import trio.testing

from trio_ws import ConnectionLost, Limits, WebSocket, serve_listeners
from trio_ws._attendant import SLICE, Attendant
from trio_ws._connection import Connection
from trio_ws._services import open_services
from trio_ws.testing import CLOSE, PING, PONG, RawPeer, WrappedStream, open_websocket

from .attendant_world import Clock


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
