"""What the tests of a server share: a listener in memory, a server on it, a word with it.

Lives here: these. Must never live here: a test, a fixture (conftest.py).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import trio
import trio.testing

from trio_ws import Limits, Server, WebSocket, serve_listeners
from trio_ws.testing import RawPeer


async def echo(ws: WebSocket) -> None:
    async for message in ws:
        await ws.send(message)


class MemoryListener(trio.abc.Listener[trio.abc.Stream]):
    """Accepts what `put` and `connect` put in; an exception put in is raised from `accept`."""

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[Any](1000)
        self.accepts = 0
        self.closed = False

    def connect(self) -> trio.StapledStream[Any, Any]:
        ours, theirs = trio.testing.memory_stream_pair()
        self.put(theirs)
        return ours

    def put(self, item: trio.abc.Stream | Exception) -> None:
        self._send.send_nowait(item)

    async def accept(self) -> trio.abc.Stream:
        self.accepts += 1
        item = await self._receive.receive()
        if isinstance(item, Exception):
            raise item
        return item  # type: ignore[no-any-return]

    async def aclose(self) -> None:
        self.closed = True
        self._receive.close()
        await trio.lowlevel.checkpoint()


class Served:
    """A server in memory, in the nursery of the test; and when `serve_listeners` returned.

    Its clocks stand still: no pings, and a close that nobody answers is waited for.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.listener = MemoryListener()
        self.scope = trio.CancelScope()
        self.returned_at: float | None = None
        self.server: Server

    async def start(self, handler: Any = echo, **options: Any) -> None:
        options.setdefault("limits", Limits(close_timeout=1000, cancel_grace=0, ping_interval=None))

        async def run(task_status: trio.TaskStatus[Server]) -> None:
            with self.scope:
                await serve_listeners(handler, [self.listener], task_status=task_status, **options)
                self.returned_at = trio.current_time()

        self.server = await self.nursery.start(run)

    async def peers(self, count: int) -> list[RawPeer]:
        found = []
        for _ in range(count):
            found.append(RawPeer(self.listener.connect()))
            await found[-1].request()
        return found


@asynccontextmanager
async def serving(
    listener: trio.abc.Listener[Any], handler: Any = echo, **options: Any
) -> AsyncIterator[Server]:
    """A server for the body; cancelled at its end, without waiting for anybody."""
    options["limits"] = replace(options.get("limits", Limits()), cancel_grace=0)
    async with trio.open_nursery() as nursery:

        async def run(task_status: trio.TaskStatus[Server]) -> None:
            await serve_listeners(handler, [listener], task_status=task_status, **options)

        yield await nursery.start(run)
        nursery.cancel_scope.cancel()


async def talk(peer: RawPeer, text: str = "hello") -> None:
    """The connection works."""
    await peer.send_message(text)
    assert await peer.receive_message() == text
