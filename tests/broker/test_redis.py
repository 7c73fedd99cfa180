"""`RedisBroker` against a real Redis, which is killed, frozen and started again.

Lives here: what the broker promises over faults of Redis and of processes. Must never live here:
what all brokers promise without faults in one process (tests/test_broker.py).
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from trio_ws import BrokerError, Room
from trio_ws._broker import read_id_untrusted
from trio_ws.redis import RedisBroker
from trio_ws.testing import open_pair

READER = Path(__file__).with_name("reader.py")
PATIENCE = 60


class Reader:
    """`reader.py` in a process of its own, and the lines it has printed."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self._rest = b""

    async def line(self) -> str:
        assert self.process.stdout is not None
        while b"\n" not in self._rest:
            data = await self.process.stdout.receive_some()
            assert data, "the reader ended"
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()

    async def until(self, message: str) -> list[tuple[str, str]]:
        """Pairs of id and message, up to this one."""
        got: list[tuple[str, str]] = []
        while not got or got[-1][1] != message:
            number, _, words = (await self.line()).partition(" ")
            got.append((number, words))
        return got


@asynccontextmanager
async def reading(url: str, room: str, after: str = "") -> AsyncIterator[Reader]:
    """A process that reads `room`."""
    process = await trio.lowlevel.open_process(
        [sys.executable, str(READER), url, room, after],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        reader = Reader(process)
        assert await reader.line() == "ready"
        yield reader
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            await process.stdin.aclose()
            await process.stdout.aclose()


async def say(broker: RedisBroker, room: str, message: str) -> tuple[str, int]:
    """Publish, again and again until it is known to be written; its id, and the failures."""
    failures = 0
    while True:
        try:
            return await broker.publish(room, message, token=message), failures
        except BrokerError:
            failures += 1
            await trio.sleep(0.05)


async def test_nothing_is_lost_when_redis_is_killed(redis) -> None:
    """6,000 messages, Redis killed with -9 in the middle and back after two seconds: in two other
    processes all of them, once, in order, with the ids that `publish` returned."""
    names = [str(number) for number in range(6000)]
    failures = 0
    ids: list[str] = []
    with trio.fail_after(PATIENCE):
        async with (
            reading(redis.url, "r") as one,
            reading(redis.url, "r") as two,
            RedisBroker(redis.url) as broker,
            trio.open_nursery() as nursery,
        ):
            got: dict[int, list[tuple[str, str]]] = {}

            async def collect(index: int, reader: Reader) -> None:
                got[index] = await reader.until("end")

            async def outage() -> None:
                redis.kill()
                await trio.sleep(2)
                await trio.to_thread.run_sync(redis.start)

            nursery.start_soon(collect, 1, one)
            nursery.start_soon(collect, 2, two)
            for name in [*names, "end"]:
                if name == "3000":
                    nursery.start_soon(outage)
                number, failed = await say(broker, "r", name)
                ids.append(number)
                failures += failed
    assert failures, "nobody noticed the outage"
    wanted = list(zip(ids, [*names, "end"], strict=True))
    assert got[1] == wanted
    assert got[2] == wanted


async def test_nothing_is_lost_when_a_reading_process_is_killed(redis) -> None:
    """Killed with -9 and started again behind the last id it printed: all, once, in order."""
    with trio.fail_after(PATIENCE):
        async with RedisBroker(redis.url) as broker, trio.open_nursery() as nursery:

            async def talk() -> None:
                for number in range(2000):
                    await say(broker, "r", str(number))

            async with reading(redis.url, "r", "0") as reader:
                nursery.start_soon(talk)
                got = await reader.until("700")
            await trio.sleep(0.3)
            async with reading(redis.url, "r", got[-1][0]) as reader:
                got += await reader.until("1999")
    assert [message for _, message in got] == [str(number) for number in range(2000)]
    numbers = [read_id_untrusted(number) for number, _ in got]
    assert numbers == sorted(set(numbers))


async def test_a_redis_that_is_away_is_said_at_once_and_members_stay(redis) -> None:
    """BrokerError within a moment, `connected` false; the member is still there, and gets what
    comes when Redis is back, without anybody doing anything."""
    with trio.fail_after(PATIENCE):
        async with (
            RedisBroker(redis.url) as broker,
            Room("r", broker=broker) as room,
            open_pair() as (client, server),
            room.join(server) as member,
        ):
            await room.broadcast("before")
            assert await client.receive() == "before"
            redis.kill()
            with pytest.raises(BrokerError), trio.fail_after(1):
                while True:
                    await room.broadcast("lost")
            while broker.connected:
                await trio.sleep(0.01)
            for _ in range(100):
                with pytest.raises(BrokerError, match="away"), trio.fail_after(0.5):
                    await room.broadcast("lost")
            with pytest.raises(BrokerError):
                await broker.history("r", 1)
            assert room.members == (member,)
            await trio.to_thread.run_sync(redis.start)
            await say(broker, "r", "after")
            assert await client.receive() == "after"
            assert broker.connected


async def test_a_redis_that_does_not_answer_counts_as_away(redis) -> None:
    """Frozen, with its connections open: BrokerError within `timeout`; later it heals."""
    with trio.fail_after(PATIENCE):
        async with RedisBroker(redis.url, timeout=0.5) as broker:
            await broker.publish("r", "x")
            async with broker.subscribe("r") as messages:
                redis.freeze()
                try:
                    with pytest.raises(BrokerError), trio.fail_after(3):
                        await broker.publish("r", "unknown", token="t")
                    while broker.connected:
                        await trio.sleep(0.05)
                finally:
                    redis.thaw()
                number, _ = await say(broker, "r", "t")
                got = []
                while not got or got[-1][0] != number:
                    got.append(await messages.receive())
                assert len({message for _, message in got}) == len(got)


async def test_a_redis_that_was_never_there_may_come_later(redis) -> None:
    """Entering waits for one try; subscriptions by id wait until it comes."""
    redis.kill()
    with trio.fail_after(PATIENCE):
        async with RedisBroker(redis.url) as broker:
            assert not broker.connected
            with pytest.raises(BrokerError):
                await broker.publish("r", "x")
            with pytest.raises(BrokerError):
                async with broker.subscribe("r"):
                    pass
            async with broker.subscribe("r", after="0") as messages:
                await trio.to_thread.run_sync(redis.start)
                await say(broker, "r", "x")
                assert (await messages.receive())[1] == "x"


async def test_a_lost_bell_costs_a_second_at_most(redis) -> None:
    """Written by somebody who rings no bell: the poll finds it."""
    import coredis

    with trio.fail_after(PATIENCE):
        async with RedisBroker(redis.url) as broker, broker.subscribe("r") as messages:
            async with coredis.Redis.from_url(redis.url) as stranger:
                await stranger.xadd("trio_ws:{r}", {"t": "quiet"})
                await stranger.xadd("trio_ws:{r}", {"other": "no message of ours"})
                start = trio.current_time()
                assert (await messages.receive())[1] == "quiet"
                assert trio.current_time() - start < 5


async def test_cancelled_callers_cost_nothing(redis) -> None:
    """Publishers and readers cancelled half-way, hundreds of them: no connection is used up, and
    every subscription goes on."""
    with trio.fail_after(PATIENCE):
        async with RedisBroker(redis.url) as broker, broker.subscribe("r") as messages:
            for round_ in range(300):
                with trio.move_on_after(round_ % 10 / 10_000):
                    await broker.publish("r", str(round_), token=str(round_))
                with trio.move_on_after(round_ % 7 / 10_000):
                    await broker.history("r", 5)
            number, _ = await say(broker, "r", "end")
            got = [await messages.receive()]
            while got[-1][0] != number:
                with trio.move_on_after(0.0005):
                    got.append(await messages.receive())
            said = [message for _, message in got]
            assert len(set(said)) == len(said)


async def test_what_all_brokers_promise(redis) -> None:
    """Order, kinds, ids, history, tokens, the cap, rooms apart."""
    with trio.fail_after(PATIENCE):
        async with RedisBroker(redis.url, keep=100) as broker:
            ids = [await broker.publish("r", message) for message in ("é", b"\xff", bytearray())]
            assert await broker.history("r", 2) == [(ids[1], b"\xff"), (ids[2], b"")]
            assert await broker.history("r", 0) == []
            async with broker.subscribe("r", after=ids[0]) as messages:
                assert await messages.receive() == (ids[1], b"\xff")
                assert await messages.receive() == (ids[2], b"")
            assert await broker.publish("r", "x", token="t") == await broker.publish(
                "r", "x", token="t"
            )
            assert len(await broker.history("r", 9)) == 4
            assert await broker.history("other", 9) == []
            for number in range(1000):
                await broker.publish("r", str(number))
            assert 100 <= len(await broker.history("r", 9999)) < 400
            with pytest.raises(ValueError, match="not the id"):
                async with broker.subscribe("r", after="x"):
                    pass
            with pytest.raises(TypeError):
                await broker.publish("r", 1)  # type: ignore[arg-type]
            with pytest.raises(RuntimeError, match="entered"):
                async with broker:
                    pass
        with pytest.raises(trio.ClosedResourceError):
            await messages.receive()
        with pytest.raises(BrokerError):
            await broker.publish("r", "x")


@pytest.mark.parametrize("url", ["localhost:6379", "http://localhost", ""])
def test_what_is_no_url_of_a_redis_is_refused(url: str) -> None:
    """ValueError at once; the URL, which may hold a password, is not in it."""
    with pytest.raises(ValueError, match="not the URL"):
        RedisBroker(url)


async def test_the_body_s_exception_comes_out_bare(redis) -> None:
    """No group of coredis' around it."""
    error = KeyError("mine")
    with pytest.raises(KeyError) as caught:
        async with RedisBroker(redis.url):
            raise error
    assert caught.value is error
