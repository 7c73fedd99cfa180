"""The chat in several processes: one chat to its pages, whatever happens to a process or to Redis.

Lives here: processes, and clients that keep to the page's side of the protocol. Must never live
here: the chat in one process (tests/test_examples_chat.py), the page itself (tests/browser).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from trio_ws import ConnectionClosed, HandshakeError, WebSocket, connect

CHAT = Path(__file__).parents[2] / "examples" / "chat"
PATIENCE = 60  # seconds, for everything of one test
FAST = ("--port", "0", "--rate", "100000")


class Process:
    """A script of the chat, and what it prints."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.port = 0
        self._rest = b""

    async def line(self, start: str) -> str:
        """The next line, which must begin like this."""
        assert self.process.stdout is not None
        while b"\n" not in self._rest:
            data = await self.process.stdout.receive_some()
            assert data, "it ended"
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        assert line.decode().startswith(start), line
        return line.decode()


@asynccontextmanager
async def running(script: str, *options: str) -> AsyncIterator[Process]:
    """Run a script until SIGTERM; it must end with 0."""
    command = [sys.executable, "-W", "error", str(CHAT / script), *FAST, *options]
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
    found = Process(process)
    try:
        found.port = int((await found.line("listening on ")).rpartition(":")[2])
        yield found
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
    finally:
        with trio.CancelScope(shield=True):
            if process.returncode is None:
                process.terminate()
                with trio.move_on_after(15):
                    await process.wait()
                process.kill()
            assert process.stdout is not None
            await process.stdout.aclose()


class Page:
    """What a page does: comes back with the last id it saw, and keeps what it said until it is
    heard; the rest is written down."""

    def __init__(self, port: int, nickname: str) -> None:
        self.port = port
        self.nickname = nickname
        self.heard: list[tuple[str, str]] = []  # from, text
        self.events: list[dict[str, Any]] = []  # the others
        self.members: list[str] = []
        self.process = ""
        self.welcomes: list[bool] = []  # whether it was resumed
        self.closes: list[int] = []
        self._after: str | None = None
        self.waiting: dict[str, str] = {}
        self._ws: WebSocket | None = None
        self._changed = trio.Event()
        self._in_turn = trio.Lock()
        self._unsent = trio.Event()

    async def live(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._say_again)
            await self._come_back_always()
            nursery.cancel_scope.cancel()

    async def _say_again(self) -> None:
        while True:
            await self._unsent.wait()
            await trio.sleep(0.5)
            self._unsent = trio.Event()
            await self._send_all()

    async def _come_back_always(self) -> None:
        while True:
            try:
                async with connect(f"ws://127.0.0.1:{self.port}/chat/garden") as ws:
                    join = {"nickname": self.nickname, "client": f"secret of {self.nickname:>12}"}
                    await ws.send(json.dumps({"type": "join", **join, "after": self._after}))
                    async for message in ws:
                        await self._receive(ws, json.loads(message))
                    self.closes.append((await ws.wait_closed()).code)
            except (OSError, HandshakeError):
                pass
            except ConnectionClosed as closed:
                self.closes.append(closed.close.code)
                if closed.close.code >= 4000:
                    self._change()
                    return
            self._ws = None
            await trio.sleep(0.1)

    async def _receive(self, ws: WebSocket, event: dict[str, Any]) -> None:
        kind = event["type"]
        if kind == "message":
            self._take(event)
        elif kind == "welcome":
            self.members, self.process = event["members"], event["process"]
            self.welcomes.append(event["resumed"])
            for message in event["history"]:
                self._take(message)
            await self._send_all(ws)
        else:
            self.events.append(event)
            if kind == "joined":
                self.members.append(event["nickname"])
            elif kind == "left":
                self.members.remove(event["nickname"])
        if kind == "unsent":
            self._unsent.set()
        if kind == "healed":
            await self._send_all()
        self._change()

    def _take(self, message: dict[str, Any]) -> None:
        self.heard.append((message["from"], message["text"]))
        self._after = message["id"]
        self.waiting.pop(message["token"], None)

    async def _send_all(self, ws: WebSocket | None = None) -> None:
        async with self._in_turn:
            self._ws = ws or self._ws
            for token in list(self.waiting):
                await self._send(token)

    async def _send(self, token: str) -> None:
        if self._ws is not None and token in self.waiting:
            said = {"type": "say", "text": self.waiting[token], "token": token}
            try:
                await self._ws.send(json.dumps(said))
            except ConnectionClosed:
                self._ws = None

    async def say(self, text: str) -> None:
        token = f"{self.nickname}-{text}-{len(self.heard)}".replace(" ", "-")
        self.waiting[token] = text
        async with self._in_turn:
            await self._send(token)

    def _change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def until(self, condition: Callable[[Page], object]) -> None:
        while not condition(self):
            await self._changed.wait()

    def kinds(self, *kinds: str) -> list[str]:
        return [event["type"] for event in self.events if event["type"] in kinds]


@asynccontextmanager
async def pages(*ports: int) -> AsyncIterator[list[Page]]:
    """A page for each port; all of them have joined, and know of each other."""
    found = [Page(port, f"page {number}") for number, port in enumerate(ports)]
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            for page in found:
                nursery.start_soon(page.live)
                await page.until(lambda page: page.welcomes)
            for page in found:
                await page.until(lambda page: len(page.members) == len(ports))
            yield found
            nursery.cancel_scope.cancel()


async def talk(found: list[Page], count: int, in_the_middle: Callable[[], Any]) -> None:
    """Everybody says `count` things, and goes on for as long as something happens; afterwards all
    of it was heard by all, once, in one order, and of each in the order in which it was said."""
    expected: set[tuple[str, str]] = set()
    over = False

    async def chatter(page: Page) -> None:
        number = 0
        while number < count or not over:
            expected.add((page.nickname, f"{number:05}"))
            await page.say(f"{number:05}")
            await trio.sleep(0.01)
            number += 1

    async with trio.open_nursery() as nursery:
        for page in found:
            nursery.start_soon(chatter, page)
        await found[0].until(lambda page: len(page.heard) > count * len(found) / 4)
        await in_the_middle()
        over = True
    for page in found:
        await page.until(lambda page: len(page.heard) >= len(expected) and not page.waiting)
        lost = expected - set(page.heard)
        assert not lost, sorted(lost)[:10]
        assert len(page.heard) == len(expected), "something was heard twice"
        assert page.heard == found[0].heard
        own = [text for nickname, text in page.heard if nickname == page.nickname]
        assert own == sorted(own)


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
