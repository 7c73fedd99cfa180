"""A room's messages reach everybody, whole and in order, beside what members send themselves.

Lives here: `Room.publish` over streams in memory. Must never live here: members that cannot keep up
(test_rooms_overflow), brokers (test_rooms_broker).
"""

from __future__ import annotations

import pytest
import trio
import trio.testing

from trio_ws import Room
from trio_ws.testing import open_pair

from .rooms_world import long, seat


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


async def test_a_message_in_pieces_does_not_turn_the_line_about(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Who waits behind a message in pieces is woken in no particular order when it is complete:
    everything goes out all the same, in the order of the calls."""
    room = Room()
    async with seat(room) as slow, trio.open_nursery() as nursery:
        async with slow.ws.message_writer("text") as out:
            await out.send("pieces")
            for number in range(10):
                nursery.start_soon(slow.ws.send, f"sent {number}")
                await trio.testing.wait_all_tasks_blocked()
                room.publish(f"published {number}")
        calls = [f"{what} {number}" for number in range(10) for what in ("sent", "published")]
        assert await slow.everything() == ["pieces", *calls]
        nursery.cancel_scope.cancel()


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
