"""Members that fall behind: told and put out, or spared the oldest, or the newest; bounded.

Lives here: backlogs, on the mock clock. Must never live here: members that keep up
(test_rooms_publishing).
"""

from __future__ import annotations

import gc
import socket
import struct
import tracemalloc
from contextlib import AsyncExitStack

import pytest
import trio
import trio.testing

from trio_ws import ConnectionClosed, Room
from trio_ws.testing import RawPeer, open_pair, open_websocket

from .rooms_world import SMALL, long, seat


async def test_one_stalled_member_among_a_thousand(autojump_clock: trio.testing.MockClock) -> None:
    """The other 999 get everything without any time passing; the stalled one is closed with 1013
    and gone within `close_timeout`; no memory piles up."""
    room = Room(backlog=8)
    message = b"x" * 200
    async with AsyncExitStack() as stack:
        stalled = await stack.enter_async_context(seat(room))
        peers = []
        for _ in range(999):
            near, far = trio.testing.memory_stream_pair()
            ws = await stack.enter_async_context(open_websocket(far, limits=SMALL))
            stack.push_async_callback(trio.aclose_forcefully, ws)
            await stack.enter_async_context(room.join(ws))
            peers.append(near)
        frame = bytes([0x82, 126, 0, 200]) + message
        start = trio.current_time()
        sizes = []
        for round_ in range(20):
            if round_ == 8:  # tracing costs half the time of a round, and one settles the count
                tracemalloc.start()
            room.publish(message)
            for peer in peers:
                got = b""
                while len(got) < len(frame):
                    got += await peer.receive_some()
                assert got == frame
            if round_ in (10, 19):
                gc.collect()
                sizes.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
        assert trio.current_time() == start
        assert len(room.members) == 999
        assert room.stats().evicted == 1
        assert sizes[1] - sizes[0] < 10_000
        closed = await stalled.ws.wait_closed()
        assert trio.current_time() - start == pytest.approx(SMALL.close_timeout)
        assert closed.code == 1006


async def test_the_close_says_why_and_comes_behind_what_was_taken(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """1013 "too slow", after the frames that were in the outbox; nothing of the backlog."""
    room = Room(backlog=2)
    async with seat(room) as slow:
        for number in range(6):
            room.publish(long(number))
        assert room.members == ()
        assert slow.member.backlog == slow.member.backlog_bytes == 0
        assert await slow.everything() == [long(0), long(1)]
        last = slow.peer.frames[-1]
        assert (last.close_code, last.close_reason) == (1013, "too slow")
        with pytest.raises(ConnectionClosed):
            await slow.ws.send("x")
    stats = room.stats()
    assert (stats.evicted, stats.dropped, stats.backlog) == (1, 0, 0)


async def test_drop_oldest_keeps_the_newest(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The backlog slides; what is in the outbox is whole and stays."""
    room = Room(overflow="drop_oldest", backlog=3)
    async with seat(room) as slow:
        for number in range(10):
            room.publish(long(number))
        assert slow.member.backlog == 3
        assert slow.member.dropped == 5
        assert room.stats().dropped == 5
        assert await slow.everything() == [long(number) for number in (0, 1, 7, 8, 9)]
        room.publish("again")
        assert (await slow.everything())[-1] == "again"


async def test_drop_newest_keeps_the_oldest(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """What does not fit is dropped; the next that fits is taken."""
    room = Room(overflow="drop_newest", backlog=3)
    async with seat(room) as slow:
        for number in range(10):
            room.publish(long(number))
        assert slow.member.dropped == 5
        assert await slow.everything() == [long(number) for number in range(5)]


@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest", "disconnect"])
async def test_the_backlog_is_bounded_in_bytes(
    overflow: str, autojump_clock: trio.testing.MockClock
) -> None:
    """Frames are counted; a message larger than all of it may wait alone."""
    room = Room(overflow=overflow, backlog=1000, backlog_bytes=200)  # type: ignore[arg-type]
    async with seat(room) as slow:
        for number in range(2):
            room.publish(long(number))
        room.publish("h" * 1000)
        assert slow.member.backlog == 1
        room.publish(long(3))
        room.publish(long(4))
        room.publish(long(5))
        room.publish(long(6))
        assert slow.member.backlog_bytes <= (1004 if overflow == "drop_newest" else 200)
        got = await slow.everything()
    kept = {"drop_oldest": [long(4), long(5), long(6)], "drop_newest": ["h" * 1000]}
    assert got == [long(0), long(1), *kept.get(overflow, [])]
    assert room.stats().evicted == (overflow == "disconnect")


async def test_dropping_in_two_rooms_does_not_fill_the_line(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """One room's messages stay at the head while another's are dropped behind them: the places of
    the dropped are cleared away."""
    idle, busy = Room(), Room(overflow="drop_oldest", backlog=2)
    async with seat(idle) as slow, busy.join(slow.ws) as member:
        for number in range(3):
            idle.publish(long(number))
        tracemalloc.start()
        for number in range(5000):
            busy.publish(long(number))
        size, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert member.dropped == 4998
        assert size < 100_000
        assert await slow.everything() == [long(n) for n in (0, 1, 2, 4998, 4999)]


async def test_a_burst_does_not_evict_who_keeps_up() -> None:
    """More than outbox and backlog hold, published without a pause: a transport that takes it at
    once gets it all."""
    room = Room(backlog=10)
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        client = await trio.testing.open_stream_to_socket_listener(listener)
        server = await listener.accept()
        async with RawPeer(client) as peer, open_websocket(server, limits=SMALL) as ws:
            async with room.join(ws) as member:
                for number in range(200):
                    room.publish(long(number))
                assert member.dropped == 0
                assert room.members == (member,)
                for number in range(200):
                    assert await peer.receive_message() == long(number)
            await trio.aclose_forcefully(ws)


async def test_a_burst_finds_a_member_gone() -> None:
    """A member's transport fails while `publish` makes room in its full outbox: the others get
    everything, and the caller hears nothing of it."""
    room = Room()
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener, open_pair() as (other, at_other):
        client = await trio.testing.open_stream_to_socket_listener(listener)
        server = await listener.accept()
        async with open_websocket(server, limits=SMALL) as ws:
            async with room.join(ws), room.join(at_other):
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.socket.close()
                await trio.lowlevel.wait_readable(server.socket)
                for number in range(10):
                    room.publish(long(number))
                assert [await other.receive() for _ in range(10)] == [long(n) for n in range(10)]
                assert ws.closed is not None
            await trio.aclose_forcefully(ws)


@pytest.mark.parametrize(
    "options", [{"overflow": "panic"}, {"backlog": 0}, {"backlog_bytes": 0}], ids=str
)
def test_a_room_refuses_options_that_make_no_sense(options: dict[str, int]) -> None:
    """ValueError at once, not when the first member falls behind."""
    with pytest.raises(ValueError):
        Room(**options)  # type: ignore[arg-type]
