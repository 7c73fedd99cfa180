"""The chat in several processes is one chat to its pages, as long as nothing fails.

Lives here: who is here, what is said, which nicknames are taken, over two processes. Must never
live here: the chat in one process (tests/test_examples_chat.py), faults
(`test_cluster_loses_nothing.py`).
"""

from __future__ import annotations

import json
from typing import Any

import trio

from trio_ws import connect

from .cluster_world import Page, pages, running


async def test_two_processes_are_one_chat(redis: Any) -> None:
    """Who is here, what is said, who leaves, and which nicknames are taken."""
    async with (
        running("server.py", "--redis", redis.url) as one,
        running("server.py", "--redis", redis.url) as two,
        pages(one.port, two.port) as (ann, bob),
    ):
        assert ann.process != bob.process
        await ann.say("from one")
        await bob.until(lambda page: page.heard)
        await bob.say("from two")
        for page in (ann, bob):
            await page.until(lambda page: len(page.heard) == 2)
            assert page.heard == [("page 0", "from one"), ("page 1", "from two")]
        async with connect(f"ws://127.0.0.1:{two.port}/chat/garden") as thief:
            await thief.send(json.dumps({"type": "join", "nickname": "PAGE 0", "client": "x" * 20}))
            close = await thief.wait_closed()
            assert (close.code, "taken" in close.reason) == (4000, True)
        async with connect(f"ws://127.0.0.1:{one.port}/chat/garden") as guest:
            await guest.send(json.dumps({"type": "join", "nickname": "guest"}))
            await bob.until(lambda page: "guest" in page.members)
        await bob.until(lambda page: "guest" not in page.members)


async def test_a_page_takes_over_its_seat_in_another_process(redis: Any) -> None:
    """As when the old connection is dead and nobody has noticed: nobody leaves, nobody joins."""
    async with (
        running("server.py", "--redis", redis.url) as one,
        running("server.py", "--redis", redis.url) as two,
        pages(one.port, two.port, two.port) as (ann, bob, _),
    ):
        async with trio.open_nursery() as nursery:
            again = Page(two.port, ann.nickname)
            nursery.start_soon(again.live)
            await again.until(lambda page: page.welcomes)
            await ann.until(lambda page: page.closes == [4001])
            await again.say("here I am")
            await bob.until(lambda page: page.heard == [("page 0", "here I am")])
            assert again.members == ["page 0", "page 1", "page 2"]
            assert bob.kinds("left") == []
            nursery.cancel_scope.cancel()
