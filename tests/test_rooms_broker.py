"""Rooms with a broker: one room in many servers, nothing lost, nothing twice.

Lives here: `Room(broker=...)` with brokers in memory, good and flaky. Must never live here: brokers
by themselves (test_broker).
"""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from trio_ws import BrokerError, MemoryBroker, Room
from trio_ws.testing import open_pair


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
