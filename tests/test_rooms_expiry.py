"""A broker may forget what a room has published already; whoever comes back gets in all the same.

Lives here: `Room.join` with `after` against a broker that forgets all, at the worst moments. Must
never live here: what is sent of the messages that are kept, Redis (tests/broker).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

import pytest
import trio
import trio.testing

from trio_ws import Broker, Member, Room
from trio_ws._broker import read_id_untrusted
from trio_ws.testing import open_pair


class Forgetful(Broker):
    """Remembers everything, until it is told to forget or, if told so, until it is next read."""

    def __init__(self) -> None:
        self.records: list[tuple[str, str | bytes]] = []
        self.forget_when_read = False
        self._count = 0
        self._more = trio.lowlevel.ParkingLot()

    async def publish(self, room, message, *, token=None):  # type: ignore[no-untyped-def]
        await trio.lowlevel.checkpoint()
        self._count += 1
        self.records.append((f"1-{self._count}", message))
        self._more.unpark_all()
        return f"1-{self._count}"

    @asynccontextmanager
    async def subscribe(self, room, after=None):  # type: ignore[no-untyped-def]
        await trio.lowlevel.checkpoint()
        if self.forget_when_read:
            self.records.clear()
        send, receive = trio.open_memory_channel[tuple[str, str | bytes]](0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._bring, send, (1, self._count) if after is None else after)
            yield receive
            nursery.cancel_scope.cancel()

    async def _bring(self, send: trio.MemorySendChannel[tuple[str, str | bytes]], after) -> None:  # type: ignore[no-untyped-def]
        last = read_id_untrusted(after) if isinstance(after, str) else after
        while True:
            found = [one for one in self.records if read_id_untrusted(one[0]) > last]
            if found:
                await send.send(found[0])
                last = read_id_untrusted(found[0][0])
            else:
                await self._more.park()

    async def history(self, room, n):  # type: ignore[no-untyped-def]
        await trio.lowlevel.checkpoint()
        return self.records[-n:]


@asynccontextmanager
async def room_that_has_published() -> AsyncIterator[tuple[Forgetful, Room]]:
    """An open room whose pump has brought three messages."""
    broker = Forgetful()
    async with Room("r", broker=broker) as room, open_pair() as (client, server):
        async with room.join(server):
            for word in "abc":
                await room.broadcast(word)
                assert await client.receive() == word
        yield broker, room


@asynccontextmanager
async def in_time(joining: AbstractAsyncContextManager[Member]) -> AsyncIterator[None]:
    """Whoever is not let in is a failure, no test that hangs."""
    async with AsyncExitStack() as stack:
        with trio.fail_after(60):
            await stack.enter_async_context(joining)
        yield


@pytest.mark.parametrize("after", ["0", "1-1"])
async def test_nothing_is_waited_for_that_is_gone(
    after: str, autojump_clock: trio.testing.MockClock
) -> None:
    """Joined at once, and what comes next arrives."""
    async with room_that_has_published() as (broker, room), open_pair() as (client, server):
        broker.records.clear()
        start = trio.current_time()
        async with in_time(room.join(server, after=after)):
            assert trio.current_time() == start
            await room.broadcast("next")
            assert await client.receive() == "next"


async def test_what_goes_while_it_is_waited_for_is_missed_after_a_second(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """It was there when the member asked, and never comes."""
    async with room_that_has_published() as (broker, room), open_pair() as (client, server):
        broker.forget_when_read = True
        start = trio.current_time()
        async with in_time(room.join(server, after="1-1")):
            assert trio.current_time() == start + 1
            await room.broadcast("next")
            assert await client.receive() == "next"


async def test_what_is_kept_still_is_sent(autojump_clock: trio.testing.MockClock) -> None:
    """Of three messages the first is gone: the other two, and what comes next."""
    async with room_that_has_published() as (broker, room), open_pair() as (client, server):
        del broker.records[0]
        async with room.join(server, after="0"):
            await room.broadcast("next")
            assert [await client.receive() for _ in range(3)] == ["b", "c", "next"]
