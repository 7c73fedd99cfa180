"""The chat's processes, and clients that keep to the page's side of the protocol.

Lives here: these, and what everybody who talks must have heard. Must never live here: a test, the
page itself (tests/browser).
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

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
