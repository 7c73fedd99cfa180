"""A room's record in Redis goes when the room falls silent, and nobody is told that nothing is
missing, left waiting, or told something twice.

Lives here: `expire`, with a real Redis, in real seconds: few. Must never live here: what else may
befall a Redis (`test_redis.py`).
"""

from __future__ import annotations

from typing import Any

import coredis
import pytest
import trio

from trio_ws import Room
from trio_ws._broker import read_id_untrusted
from trio_ws.redis import RedisBroker
from trio_ws.testing import open_pair

PATIENCE = 60
SOON = 1.0
"""Seconds: as soon as a record can expire."""


async def gone(broker: RedisBroker, room: str) -> None:
    """Wait until nothing of this room is kept."""
    while await broker.history(room, 1):
        await trio.sleep(0.05)


async def time_to_live(url: str, key: str) -> int:
    """Milliseconds; -1 for ever, -2 for no such key."""
    async with coredis.Redis.from_url(url) as client:
        left: int = await client.pttl(key)
        return left


async def test_a_silent_room_costs_nothing_in_the_end(redis: Any) -> None:
    """Neither its record nor its tokens stay for ever, by default."""
    week = 7 * 24 * 3600 * 1000
    async with RedisBroker(redis.url) as broker:
        await broker.publish("r", "x", token="t")
        assert week - 60_000 < await time_to_live(redis.url, "trio_ws:{r}") <= week
        async with coredis.Redis.from_url(redis.url) as client:
            keys = [key async for key in client.scan_iter()]
            assert len(keys) == 2
            assert all([await client.pttl(key) > 0 for key in keys])


async def test_each_message_gives_the_room_its_time_again(redis: Any) -> None:
    """With the room's last message all of its messages go, and none before."""
    with trio.fail_after(PATIENCE):
        async with RedisBroker(redis.url, expire=100) as broker:
            await broker.publish("r", "one")
            async with coredis.Redis.from_url(redis.url) as client:
                await client.pexpire("trio_ws:{r}", 50_000)
            await broker.publish("r", "two")
            assert await time_to_live(redis.url, "trio_ws:{r}") > 90_000


async def test_a_record_may_be_kept_for_ever(redis: Any) -> None:
    """Also one that a broker with other settings wrote."""
    async with RedisBroker(redis.url) as broker:
        await broker.publish("r", "one")
    async with RedisBroker(redis.url, expire=None) as broker:
        await broker.publish("r", "two")
    assert await time_to_live(redis.url, "trio_ws:{r}") == -1


async def test_who_comes_back_too_late_can_see_the_gap(redis: Any) -> None:
    """As with a room that was trimmed: the last message seen is not kept, what comes has a higher
    id, and an open subscription goes on."""
    with trio.fail_after(PATIENCE):
        async with RedisBroker(redis.url, expire=SOON) as broker, broker.subscribe("r") as open_one:
            seen = await broker.publish("r", "seen")
            missed = await broker.publish("r", "missed")
            assert [await open_one.receive() for _ in range(2)] == [
                (seen, "seen"),
                (missed, "missed"),
            ]
            await gone(broker, "r")
            later = await broker.publish("r", "later")
            assert read_id_untrusted(later) > read_id_untrusted(missed)
            assert await open_one.receive() == (later, "later")
            assert await broker.history("r", 10) == [(later, "later")]
            async with broker.subscribe("r", after=seen) as messages:
                assert await messages.receive() == (later, "later")


@pytest.mark.parametrize("after", ["0", "seen"])
async def test_who_comes_back_to_an_open_room_is_not_left_waiting(redis: Any, after: str) -> None:
    """The room knows of messages that are gone; whoever asks for them gets in without."""
    with trio.fail_after(PATIENCE):
        async with (
            RedisBroker(redis.url, expire=SOON) as broker,
            Room("r", broker=broker) as room,
            open_pair() as (client, server),
            open_pair() as (late_client, late_server),
            room.join(server),
        ):
            seen = await room.broadcast("seen")
            await room.broadcast("missed")
            assert [await client.receive() for _ in range(2)] == ["seen", "missed"]
            await gone(broker, "r")
            async with room.join(late_server, after=seen if after == "seen" else after):
                await room.broadcast("later")
                assert await late_client.receive() == "later"
                assert await client.receive() == "later"


@pytest.mark.parametrize("expire", [0, 0.5, -1, 1e16, float("nan"), float("inf")])
def test_what_is_no_time_to_expire_is_refused(expire: float) -> None:
    with pytest.raises(ValueError, match="expires"):
        RedisBroker("redis://localhost", expire=expire)
