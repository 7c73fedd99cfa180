"""Nothing is lost and nothing doubled, whatever happens to a process of the chat or to Redis.

Lives here: pages that talk while something dies, is replaced or is stopped. Must never live here:
what the broker promises by itself (`test_redis.py`).
"""

from __future__ import annotations

import os
import signal
from contextlib import AsyncExitStack
from typing import Any

import pytest
import trio

from .cluster_world import pages, running, talk


@pytest.mark.parametrize("how", ["kill", "SIGHUP"])
async def test_nothing_is_lost_or_doubled_when_workers_go(redis: Any, how: str) -> None:
    """One is killed and started again; or all are replaced. Nobody seems to leave meanwhile."""
    async with running("run_cluster.py", "--workers", "2", "--redis", redis.url) as cluster:
        async with pages(*[cluster.port] * 6) as found:
            before = {page.process for page in found}

            async def kill() -> None:
                pid = int(found[0].process.partition("-")[0], 16)
                os.kill(pid, signal.SIGKILL)
                await cluster.line(f"worker {pid} died")

            async def replace() -> None:
                cluster.process.send_signal(signal.SIGHUP)
                await cluster.line("all workers are new")

            await talk(found, 150, kill if how == "kill" else replace)
            for page in found:
                assert all(page.welcomes[1:]), "a page could not resume"
                assert sorted(page.members) == [f"page {number}" for number in range(6)]
                assert page.kinds("left") == []
                if how == "SIGHUP":
                    await page.until(lambda page: page.process not in before)


async def test_redis_is_killed_in_the_middle(redis: Any) -> None:
    """Members stay, are told of the trouble and of its end, and nothing is lost or doubled."""
    async with (
        running("server.py", "--redis", redis.url) as one,
        running("server.py", "--redis", redis.url) as two,
        pages(one.port, two.port, one.port) as found,
    ):

        async def kill_redis() -> None:
            await trio.sleep(1.5)  # what was acknowledged is in the append-only file by then
            redis.kill()
            for page in found:
                await page.until(lambda page: "trouble" in page.kinds("trouble"))
            await trio.to_thread.run_sync(redis.start)
            for page in found:
                await page.until(lambda page: "healed" in page.kinds("healed"))

        await talk(found, 150, kill_redis)
        for page in found:
            assert page.kinds("trouble", "healed") == ["trouble", "healed"]
            assert page.welcomes == [False], "somebody had to connect again"
            assert page.kinds("left") == []


async def test_a_cluster_that_is_stopped_and_started_has_lost_nothing(redis: Any) -> None:
    """SIGTERM drains one worker after another, all of it ends with 0, and pages wait and go on."""
    options = ("--workers", "2", "--redis", redis.url)
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(running("run_cluster.py", *options))
        async with pages(*[first.port] * 4) as found:

            async def stop_and_start() -> None:
                await stack.aclose()
                again = running("run_cluster.py", *options, "--port", str(first.port))
                await stack.enter_async_context(again)

            await talk(found, 100, stop_and_start)
            for page in found:
                assert set(page.closes) == {1001}
                assert all(page.welcomes[1:]), "a page could not resume"
