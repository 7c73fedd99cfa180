"""Rooms: one message to many, and what happens to those who cannot keep up.

Lives here: `Room` and `Member` over streams in memory, with the mock clock. Must never live here:
brokers by themselves (test_broker), benchmarks.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import pytest
import trio
import trio.testing

from trio_ws import (
    BrokerError,
    ConnectionClosed,
    Deflate,
    Instrument,
    Limits,
    Member,
    MemoryBroker,
    Policy,
    Presence,
    Room,
    WebSocket,
    serve,
    serve_stream,
)
from trio_ws.testing import BINARY, RawPeer, StallingStream, open_pair, open_websocket

SMALL = Limits(max_outbox=100, ping_interval=None, close_timeout=5)


class Seat:
    """A member whose outbound stream the test holds: nothing passes until `stream.release`."""

    def __init__(self, ws: WebSocket, member: Member, stream: StallingStream, peer: RawPeer):
        self.ws, self.member, self.stream, self.peer = ws, member, stream, peer

    async def everything(self) -> list[str | bytes]:
        """Let all pass; the messages that came."""
        self.stream.release()
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(1):
            while True:
                await self.peer.receive_frame()
        return self.peer.messages


def long(number: int) -> str:
    """A message of which two fill an outbox of `SMALL`."""
    return f"{number:04}" + "-" * 56


@asynccontextmanager
async def seat(room: Room, *, limits: Limits = SMALL) -> AsyncIterator[Seat]:
    """A member that takes nothing yet."""
    near, far = trio.testing.memory_stream_pair()
    stream = StallingStream(far, after=0)
    async with RawPeer(near) as peer, open_websocket(stream, limits=limits) as ws:
        async with room.join(ws) as member:
            try:
                yield Seat(ws, member, stream, peer)
            finally:
                stream.release()
                await trio.aclose_forcefully(ws)


# -- publishing ----------------------------------------------------------------------------------


async def test_everybody_gets_it_but_those_excluded() -> None:
    """`exclude` takes members and connections; text stays text, bytes stay bytes."""
    room = Room()
    async with open_pair() as (ann, at_ann), open_pair() as (bob, at_bob):
        async with room.join(at_ann) as a, room.join(at_bob):
            room.publish("1")
            room.publish(b"2", exclude=[a])
            room.publish(bytearray(b"3"), exclude={at_bob})
            room.publish("4", exclude=(each for each in [a, at_bob]))
            room.publish("5")
            assert [await ann.receive() for _ in range(3)] == ["1", b"3", "5"]
            assert [await bob.receive() for _ in range(3)] == ["1", b"2", "5"]
    assert room.stats().published == 5
    assert room.stats().delivered == 6


async def test_what_is_no_message_reaches_nobody() -> None:
    """TypeError and ValueError come before the first member got anything."""
    room = Room()
    async with open_pair() as (client, server), room.join(server):
        with pytest.raises(TypeError):
            room.publish(7)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="surrogates"):
            room.publish("\ud800")
        room.publish("good")
        assert await client.receive() == "good"


async def test_a_mutable_buffer_may_change_at_once() -> None:
    """What is published is what the buffer held at the call."""
    room = Room()
    async with open_pair() as (client, server), room.join(server):
        buffer = bytearray(b"old")
        room.publish(buffer)
        buffer[:] = b"new"
        assert await client.receive() == b"old"


async def test_a_message_and_the_member_s_own_send_keep_their_order(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Also where both have to wait: first come, first out."""
    room = Room(backlog=100)
    async with seat(room) as slow, trio.open_nursery() as nursery:
        for number in range(8):
            room.publish(long(number))
        nursery.start_soon(slow.ws.send, long(8))
        await trio.testing.wait_all_tasks_blocked()
        for number in range(9, 12):
            room.publish(long(number))
        assert slow.member.backlog > 5
        assert await slow.everything() == [long(number) for number in range(12)]


async def test_a_room_that_never_stops_does_not_keep_out_a_sender(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A member always behind still gets its own replies: a sender has a turn in the line."""
    room = Room(overflow="drop_oldest", backlog=10)
    async with seat(room) as slow, trio.open_nursery() as nursery:
        for _ in range(30):
            room.publish("x" * 60)
        nursery.start_soon(slow.ws.send, "own")
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(60):
            room.publish("x" * 60)
            slow.stream.release(64)
            await trio.testing.wait_all_tasks_blocked()
            slow.stream.stall()
        assert slow.member.backlog > 0, "it must have been behind all the time"
        assert "own" in await slow.everything()


async def test_a_sender_that_gives_up_stops_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Cancelled in the line: what waits behind it goes on."""
    room = Room()
    async with seat(room) as slow:
        for number in range(6):
            room.publish(long(number))
        with trio.move_on_after(0) as scope:
            await slow.ws.send("never")
        assert scope.cancelled_caught
        room.publish(long(6))
        assert await slow.everything() == [long(number) for number in range(7)]


async def test_a_message_in_pieces_is_not_torn() -> None:
    """While a member's message is written in pieces, the room's wait; then they come."""
    room = Room()
    async with open_pair() as (client, server), room.join(server) as member:
        async with server.message_writer("text") as out:
            await out.send("one ")
            room.publish("room")
            assert member.backlog == 1
            await out.send("message")
        assert await client.receive() == "one message"
        assert await client.receive() == "room"
        assert member.backlog == 0


async def test_two_rooms_of_one_connection_share_one_line(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Order is that of the calls over all rooms; leaving one drops only its own."""
    first, second = Room(), Room()
    async with seat(first) as slow:
        async with second.join(slow.ws) as other:
            for number in range(4):
                first.publish(f"a{number}" + "-" * 60)
                second.publish(f"b{number}" + "-" * 60)
            assert slow.member.backlog
            assert other.backlog
        assert other.backlog == other.backlog_bytes == 0
        got = [str(message)[:2] for message in await slow.everything()]
    assert got == ["a0", "b0", "a1", "a2", "a3"]


async def test_a_client_may_be_a_member_too() -> None:
    """Its frames are masked, each by itself (RFC 6455 section 5.3)."""
    room = Room()
    async with open_pair() as (client, server), room.join(client), room.join(server):
        room.publish("both")
        assert await server.receive() == "both"
        assert await client.receive() == "both"


# -- members that fall behind --------------------------------------------------------------------


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
        tracemalloc.start()
        for round_ in range(20):
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


@pytest.mark.parametrize(
    "options", [{"overflow": "panic"}, {"backlog": 0}, {"backlog_bytes": 0}], ids=str
)
def test_a_room_refuses_options_that_make_no_sense(options: dict[str, int]) -> None:
    """ValueError at once, not when the first member falls behind."""
    with pytest.raises(ValueError):
        Room(**options)  # type: ignore[arg-type]


# -- membership ----------------------------------------------------------------------------------


async def test_membership_ends_with_the_block_however_it_ends() -> None:
    """Left, cancelled, raised: out of the room, and the backlog with it."""
    room = Room()
    async with seat(room) as one:
        other = Room()
        with trio.CancelScope() as scope:
            async with other.join(one.ws):
                assert len(other.members) == 1
                scope.cancel()
                await trio.sleep_forever()
        assert other.members == ()
        with pytest.raises(ZeroDivisionError):
            async with other.join(one.ws):
                1 / 0  # noqa: B018
        assert other.members == ()
        async with other.join(one.ws, context="ada") as member:
            assert member.context == "ada"
            assert member.ws is one.ws
        assert other.members == ()
    assert room.members == ()


async def test_nobody_is_in_a_room_twice() -> None:
    """RuntimeError: every message would come twice."""
    room = Room()
    async with open_pair() as (_, server), room.join(server):
        with pytest.raises(RuntimeError, match="already"):
            async with room.join(server):
                pass
        assert len(room.members) == 1


async def test_who_is_closing_gets_nothing_and_harms_nobody(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A member whose connection has ended stays until its block ends; publishing passes it by."""
    room = Room()
    async with open_pair() as (client, server), open_pair() as (other, at_other):
        async with room.join(server), room.join(at_other):
            await server.close()
            room.publish("x")
            assert await other.receive() == "x"
            assert len(room.members) == 2
        del client


def test_thousands_of_empty_rooms_cost_nothing() -> None:
    """An empty room is one small object and a dict: under a kilobyte, no task."""
    tracemalloc.start()
    rooms = [Room(f"room {number}") for number in range(5000)]
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size / len(rooms) < 700


async def test_a_room_that_has_emptied_owns_no_task(nursery: trio.Nursery) -> None:
    """Publishing and leaving leaves nothing behind."""
    room = Room()
    async with open_pair() as (client, server):
        await server.send("the flusher of a stream stays, once it was needed")
        await client.receive()
        before = trio.lowlevel.current_statistics().tasks_living
        async with room.join(server):
            room.publish("x")
            assert await client.receive() == "x"
        assert trio.lowlevel.current_statistics().tasks_living == before


# -- presence ------------------------------------------------------------------------------------


async def test_presence_tells_who_came_and_went(autojump_clock: trio.testing.MockClock) -> None:
    """The first look has everybody; later ones what has changed; a visit between two is none."""
    room = Room()
    async with AsyncExitStack() as stack:
        wss = [(await stack.enter_async_context(open_pair()))[1] for _ in range(3)]
        async with room.join(wss[0]) as a:
            with room.presence() as changes:
                seen = aiter(changes)
                assert await anext(seen) == Presence(joined=(a,), left=())
                with trio.move_on_after(1) as scope:
                    await anext(seen)
                assert scope.cancelled_caught, "nothing has changed"
                async with room.join(wss[1]) as b:
                    async with room.join(wss[2]):
                        pass
                    assert await anext(seen) == Presence(joined=(b,), left=())
                assert await anext(seen) == Presence(joined=(), left=(b,))
        assert repr(room) == "<Room '' 0 members>"


async def test_presence_hears_of_an_eviction_at_once() -> None:
    """The list of who is there shows no ghosts for as long as a Close takes."""
    room = Room(backlog=1)
    async with seat(room) as slow:
        with room.presence() as changes:
            await anext(aiter(changes))
            for number in range(6):
                room.publish(long(number))
            assert await anext(aiter(changes)) == Presence(joined=(), left=(slow.member,))
            assert not slow.ws.closed


async def test_presence_wakes_who_waits(nursery: trio.Nursery) -> None:
    """A waiting task sees the change as it happens."""
    room = Room()
    seen: list[Presence] = []

    async def watch() -> None:
        with room.presence() as changes:
            seen.append(await anext(aiter(changes)))

    nursery.start_soon(watch)
    await trio.testing.wait_all_tasks_blocked()
    async with open_pair() as (_, server), room.join(server) as member:
        await trio.testing.wait_all_tasks_blocked()
        assert seen == [Presence(joined=(member,), left=())]
    nursery.cancel_scope.cancel()


# -- compression ---------------------------------------------------------------------------------


@asynccontextmanager
async def compressed(
    room: Room, offers: list[bytes], deflate: Deflate, **options: object
) -> AsyncIterator[list[RawPeer]]:
    """Members that have offered these extensions (b"" for none) to one server."""

    async def handler(ws: WebSocket) -> None:
        async with room.join(ws):
            async for _ in ws:
                pass

    async with trio.open_nursery() as nursery:
        peers = []
        for offer in offers:
            near, far = trio.testing.memory_stream_pair()
            nursery.start_soon(
                partial(serve_stream, handler, far, compression=deflate, policy=Policy(), **options)  # type: ignore[arg-type]
            )
            peer = RawPeer(near, allow_rsv=4)
            headers = [(b"Sec-WebSocket-Extensions", offer)] if offer else []
            await peer.request(headers=headers)
            peers.append(peer)
        await trio.testing.wait_all_tasks_blocked()
        yield peers
        for peer in peers:
            await peer.aclose()


ALONE = b"permessage-deflate; server_no_context_takeover"


async def test_equal_members_without_context_share_a_compressed_frame(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Compressed once for all members with `server_no_context_takeover` and equal parameters,
    afresh for others, not at all for who has not agreed; everyone reads the same message."""
    import zlib

    import trio_ws._permessage as permessage

    made: list[int] = []

    class Counting:
        """zlib, and how many compressors it made."""

        def __getattr__(self, name: str) -> object:
            return getattr(zlib, name)

        def compressobj(self, *arguments: int) -> object:
            made.append(1)
            return zlib.compressobj(*arguments)

    monkeypatch.setattr(permessage, "zlib", Counting())
    room = Room()
    smaller = ALONE + b"; server_max_window_bits=10"
    offers = [ALONE] * 20 + [smaller] * 5 + [b"permessage-deflate"] * 2 + [b""] * 3
    text = "the same again and again " * 40
    async with compressed(room, offers, Deflate(threshold=100)) as peers:
        room.publish(text)
        frames = [await peer.receive_frame() for peer in peers]
        assert len(made) == 1 + 1 + 2
        assert len({bytes(peer.received_bytes) for peer in peers[:20]}) == 1
        room.publish("short")
        for peer in peers:
            assert (await peer.receive_frame()).payload == b"short"
        assert len(made) == 4, "below the threshold nobody compresses"
        room.publish(text)
        again = [await peer.receive_frame() for peer in peers]
    for peer, first, second in zip(peers, frames, again, strict=True):
        inflater = zlib.decompressobj(-15)
        for frame in (first, second):
            payload = frame.payload
            if frame.rsv:
                if offers[peers.index(peer)].startswith(ALONE):
                    inflater = zlib.decompressobj(-15)
                payload = inflater.decompress(payload + b"\x00\x00\xff\xff")
            assert payload == text.encode()
    assert not any(frame.rsv for frame in frames[-3:])


async def test_instruments_hear_of_each_delivery() -> None:
    """`message_sent` is called for every member, as if each had been sent it."""
    sent: list[tuple[int, str]] = []

    class Counter(Instrument):
        def message_sent(self, ws: WebSocket, size: int, kind: str) -> None:
            sent.append((size, kind))

    room = Room()
    async with compressed(room, [b"", b""], Deflate(), instruments=[Counter()]) as peers:
        room.publish("é")
        for peer in peers:
            await peer.receive_frame()
    assert sent == [(2, "text"), (2, "text")]


async def test_a_room_of_a_thousand_lets_others_run_between_its_writes() -> None:
    """About a hundred members are written a step: another task runs in between."""
    room = Room()
    passes = 0

    async def count() -> None:
        nonlocal passes
        while True:
            await trio.lowlevel.checkpoint()
            passes += 1

    async def handler(ws: WebSocket) -> None:
        async with room.join(ws):
            async for _ in ws:
                pass

    # Written in steps by one service task per server: its streams are sockets, written at once.
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, handler, 0, host="127.0.0.1"))
        peers = []
        for _ in range(300):
            peer = RawPeer(await trio.open_tcp_stream("127.0.0.1", server.port))
            await peer.request()
            peers.append(peer)
        with trio.fail_after(10):
            while len(room.members) < 300:
                await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(count)
        before = passes
        room.publish(b"x")
        with trio.fail_after(5):
            await peers[-1].expect(BINARY, b"x")
        assert passes - before >= 2
        for peer in peers:
            await peer.aclose()
        nursery.cancel_scope.cancel()


# -- with a broker -------------------------------------------------------------------------------


async def test_two_rooms_of_one_name_are_one() -> None:
    """What is broadcast in one comes to the members of both, in one order."""
    broker = MemoryBroker()
    async with (
        Room("lobby", broker=broker) as here,
        Room("lobby", broker=broker) as there,
        Room("other", broker=broker) as other,
        open_pair() as (ann, at_ann),
        open_pair() as (bob, at_bob),
        open_pair() as (_, at_eve),
    ):
        async with here.join(at_ann), there.join(at_bob), other.join(at_eve):
            for number in range(5):
                await (here if number % 2 else there).broadcast(str(number))
            for client in (ann, bob):
                assert [await client.receive() for _ in range(5)] == list("01234")
            assert other.stats().published == 0


async def test_who_comes_back_misses_nothing_and_gets_nothing_twice() -> None:
    """`join(after=...)`: what was missed, then what comes, while others never stop talking."""
    broker = MemoryBroker()
    wrap = "{}={}".format
    async with Room("r", broker=broker, wrap=wrap) as room, trio.open_nursery() as nursery:
        ids = [await room.broadcast(str(number)) for number in range(20)]

        async def talk() -> None:
            for number in range(20, 200):
                ids.append(await room.broadcast(str(number)))  # noqa: PERF401  read as it grows

        nursery.start_soon(talk)
        for after in (0, 7, 19):
            async with open_pair() as (client, server):
                async with room.join(server, after=ids[after]):
                    got = [str(await client.receive()) for _ in range(100)]
                    assert got == [f"{ids[n]}={n}" for n in range(after + 1, after + 101)]
        while len(ids) < 200:
            await trio.testing.wait_all_tasks_blocked()
        async with open_pair() as (client, server):
            async with room.join(server, after=ids[-1]):
                await room.broadcast("new")
                assert str(await client.receive()).endswith("=new")
            async with room.join(server, after="0"):
                assert await client.receive() == f"{ids[0]}=0"


async def test_a_room_needs_its_broker_and_its_block() -> None:
    """RuntimeError for what cannot work, ValueError for a broker without a name."""
    with pytest.raises(ValueError, match="name"):
        Room(broker=MemoryBroker())
    with pytest.raises(RuntimeError, match="no broker"):
        await Room().broadcast("x")
    with pytest.raises(RuntimeError, match="no broker"):
        async with Room():
            pass
    room = Room("r", broker=MemoryBroker())
    with pytest.raises(RuntimeError, match="enter"):
        await room.broadcast("x")
    async with room, open_pair() as (_, server):
        with pytest.raises(ValueError, match="id"):
            async with room.join(server, after="drop table"):
                pass
        assert room.members == ()
    async with room:
        await room.broadcast("entered again")


async def test_the_body_s_exception_comes_out_bare() -> None:
    """No group of ours around it, and the pump is gone."""
    tasks = trio.lowlevel.current_statistics().tasks_living
    error = KeyError("mine")
    with pytest.raises(KeyError) as caught:
        async with Room("r", broker=MemoryBroker()):
            raise error
    assert caught.value is error
    assert trio.lowlevel.current_statistics().tasks_living == tasks


class Flaky(MemoryBroker):
    """Brings each message twice, ends every subscription with an error after two, or is away."""

    away = False

    async def history(self, room: str, n: int) -> list[tuple[str, str | bytes]]:
        if self.away:
            raise BrokerError("away")
        return await super().history(room, n)

    @asynccontextmanager
    async def subscribe(self, room, after=None):  # type: ignore[no-untyped-def, override]
        async with super().subscribe(room, after) as messages:
            send, receive = trio.open_memory_channel[tuple[str, str | bytes]](4)
            with receive:
                for _ in range(2):
                    record = await messages.receive()
                    await send.send(record)
                    await send.send(record)  # at least once is all that is asked of a broker
                send.close()
                yield receive
            raise OSError("broken")


async def test_a_broken_subscription_is_taken_up_where_it_broke(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Logged, tried again a second later, from the last id on: nothing lost, nothing twice."""
    async with Room("r", broker=Flaky()) as room, open_pair() as (client, server):
        async with room.join(server):
            for number in range(6):
                await room.broadcast(str(number))
            assert [await client.receive() for _ in range(6)] == list("012345")
    assert "tried again" in caplog.text


async def test_entering_says_that_the_broker_is_away() -> None:
    """A room that could not tell where it begins would lose messages silently."""
    broker = Flaky()
    broker.away = True
    with pytest.raises(BrokerError):
        async with Room("r", broker=broker):
            pass


async def test_a_message_that_cannot_be_wrapped_is_skipped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One bad record must not stop a room for ever."""

    def wrap(number: str, message: str | bytes) -> str | bytes:
        assert isinstance(message, str), "only text here"
        return message

    async with Room("r", broker=MemoryBroker(), wrap=wrap) as room:
        async with open_pair() as (client, server), room.join(server):
            await room.broadcast(b"poison")
            await room.broadcast("good")
            assert await client.receive() == "good"
    assert "cannot publish" in caplog.text
