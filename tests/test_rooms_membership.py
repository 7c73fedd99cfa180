"""Who is in a room, and who hears of it.

Lives here: joining, leaving, presence, what an empty room costs. Must never live here: messages
(test_rooms_publishing).
"""

from __future__ import annotations

import tracemalloc
from contextlib import AsyncExitStack

import pytest
import trio
import trio.testing

from trio_ws import Presence, Room
from trio_ws.testing import open_pair

from .rooms_world import long, seat

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
