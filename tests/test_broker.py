"""`MemoryBroker`, and what every broker promises.

Lives here: publish, subscribe, history, ids, tokens. Must never live here: rooms
(test_rooms_broker), Redis (tests/broker).
"""

from __future__ import annotations

import pytest
import trio
import trio.testing

from trio_ws import MemoryBroker
from trio_ws._broker import read_id_untrusted


async def read(broker: MemoryBroker, room: str, after: str | None, count: int) -> list[object]:
    """The next `count` messages behind `after`, without their ids."""
    async with broker.subscribe(room, after=after) as messages:
        return [(await messages.receive())[1] for _ in range(count)]


async def test_messages_come_in_order_with_growing_ids() -> None:
    """Ids compare as numbers: the tenth is above the ninth."""
    broker = MemoryBroker()
    async with broker.subscribe("r") as messages:
        ids = [await broker.publish("r", str(number)) for number in range(12)]
        got = [await messages.receive() for _ in range(12)]
    assert got == [(number, str(index)) for index, number in enumerate(ids)]
    numbers = [read_id_untrusted(number) for number in ids]
    assert numbers == sorted(set(numbers))


async def test_after_resumes_behind_an_id() -> None:
    """Behind the id; from the oldest kept where the id is older; from the next one without."""
    broker = MemoryBroker(keep=5)
    ids = [await broker.publish("r", number) for number in (b"0", b"1", b"2", b"3", b"4", b"5")]
    assert await read(broker, "r", ids[2], 3) == [b"3", b"4", b"5"]
    assert await read(broker, "r", ids[0], 5) == [b"1", b"2", b"3", b"4", b"5"]
    assert await read(broker, "r", "0", 1) == [b"1"]
    assert await read(broker, "r", "1-99999", 1) == [b"1"], "of an earlier life"
    async with broker.subscribe("r") as messages:
        await broker.publish("r", "new")
        assert (await messages.receive())[1] == "new"


async def test_an_id_from_the_future_waits_for_its_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Nothing is above it yet."""
    broker = MemoryBroker()
    await broker.publish("r", "x")
    with trio.move_on_after(1) as scope:
        await read(broker, "r", "9999999999999-0", 1)
    assert scope.cancelled_caught


@pytest.mark.parametrize("text", ["", "x", "-1", "1-", "1-2-3", "1 ", "１-2", "9" * 40, "1\n"])
async def test_what_is_no_id_is_a_value_error(text: str) -> None:
    """A page may send anything for the last id it saw."""
    with pytest.raises(ValueError, match="not the id"):
        async with MemoryBroker().subscribe("r", after=text):
            pass


async def test_history_is_the_last_n_oldest_first() -> None:
    """Fewer if fewer are kept, none of an unknown room."""
    broker = MemoryBroker(keep=3)
    for number in range(5):
        await broker.publish("r", str(number))
    assert [message for _, message in await broker.history("r", 2)] == ["3", "4"]
    assert [message for _, message in await broker.history("r", 9)] == ["2", "3", "4"]
    assert await broker.history("r", 0) == []
    assert await broker.history("nowhere", 9) == []


async def test_a_token_is_written_once() -> None:
    """The same token, the same id; forgotten with its message."""
    broker = MemoryBroker(keep=2)
    first = await broker.publish("r", "x", token="t")
    assert await broker.publish("r", "x", token="t") == first
    assert len(await broker.history("r", 9)) == 1
    await broker.publish("r", "y")
    await broker.publish("r", "z")
    assert await broker.publish("r", "x", token="t") != first


async def test_what_is_no_message_is_refused() -> None:
    """TypeError and ValueError; a buffer is copied."""
    broker = MemoryBroker()
    with pytest.raises(TypeError):
        await broker.publish("r", 1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="surrogates"):
        await broker.publish("r", "\ud800")
    buffer = bytearray(b"old")
    await broker.publish("r", buffer)
    buffer[:] = b"new"
    assert [message for _, message in await broker.history("r", 9)] == [b"old"]
    with pytest.raises(ValueError, match="keep"):
        MemoryBroker(keep=0)


async def test_a_cancelled_receive_loses_nothing(autojump_clock: trio.testing.MockClock) -> None:
    """Cancelled while waiting: the next receive gets what came."""
    broker = MemoryBroker()
    async with broker.subscribe("r") as messages:
        with trio.move_on_after(1):
            await messages.receive()
        await broker.publish("r", "x")
        with trio.CancelScope() as scope:
            scope.cancel()
            await messages.receive()
        assert (await messages.receive())[1] == "x"


async def test_the_channel_ends_with_its_block(nursery: trio.Nursery) -> None:
    """Who waits there wakes with ClosedResourceError; so does who comes later."""
    broker = MemoryBroker()
    woken = trio.Event()

    async def wait(channel: trio.abc.ReceiveChannel[tuple[str, str | bytes]]) -> None:
        with pytest.raises(trio.ClosedResourceError):
            await channel.receive()
        woken.set()

    async with broker.subscribe("r") as messages:
        nursery.start_soon(wait, messages)
        await trio.testing.wait_all_tasks_blocked()
    await woken.wait()
    with pytest.raises(trio.ClosedResourceError):
        await messages.receive()
    await messages.aclose()


async def test_rooms_are_apart_and_empty_ones_are_forgotten() -> None:
    """A subscriber to one hears nothing of another; subscribing leaves nothing behind."""
    broker = MemoryBroker()
    async with broker.subscribe("a") as messages:
        await broker.publish("b", "not here")
        await broker.publish("a", "here")
        assert (await messages.receive())[1] == "here"
    async with broker.subscribe("c"):
        pass
    assert await broker.history("c", 1) == []


async def test_publishing_never_waits_for_a_subscriber_who_does_not_read() -> None:
    """It loses the oldest instead, and goes on with what is kept."""
    broker = MemoryBroker(keep=10)
    async with broker.subscribe("r", after="0") as messages:
        for number in range(100):
            await broker.publish("r", str(number))
        assert [(await messages.receive())[1] for _ in range(10)] == [
            str(n) for n in range(90, 100)
        ]
