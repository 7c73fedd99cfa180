"""Half-open TCP: the wire is cut while both ends believe that it stands.

    unshare --user --map-root-user --net python half_open.py SCENARIO

Runs in a network namespace of its own, whose loopback is switched off in the middle: what is sent
from then on is lost, and nobody is told. Prints one JSON line. Lives here: both ends, one of them a
socket that stays as it is. Must never live here: a verdict.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import trio

from trio_ws import ConnectionClosed, ConnectionLost, Limits, Server, WebSocket, serve
from trio_ws.testing import RawPeer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

LIMITS = Limits(ping_interval=2.0, ping_timeout=2.0)


def loopback(state: str) -> None:
    subprocess.run(["ip", "link", "set", "lo", state], check=True)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  a count


class Scenario:
    """One connection, and what its handler learned."""

    def __init__(self) -> None:
        self.told: dict[str, Any] = {}
        self.talking = trio.Event()
        self.over = trio.Event()

    async def receiving(self, ws: WebSocket) -> None:
        """Waits for messages."""
        await self.tell(ws, ws.receive)

    async def sending(self, ws: WebSocket) -> None:
        """Sends until the outbox is full, and waits there."""

        async def forever() -> None:
            while True:
                await ws.send(bytes(16 * 1024))

        await self.tell(ws, forever)

    async def busy(self, ws: WebSocket) -> None:
        """Only hears of the end."""
        await self.tell(ws, ws.wait_closed)

    async def tell(self, ws: WebSocket, call: Callable[[], Awaitable[Any]]) -> None:
        await ws.send("hello")
        self.talking.set()
        try:
            closed = await call()
            self.told["lost"] = closed.code == 1006
            self.told["why"] = ""
        except ConnectionClosed as exc:
            self.told["lost"] = isinstance(exc, ConnectionLost)
            self.told["why"] = str(exc.__cause__)
        self.told["at"] = trio.current_time()
        self.over.set()

    async def run(self, name: str) -> dict[str, Any]:
        loopback("up")
        async with trio.open_nursery() as nursery:

            async def start(task_status: trio.TaskStatus[Server]) -> None:
                handler = getattr(self, name)
                await serve(handler, 0, host="127.0.0.1", limits=LIMITS, task_status=task_status)

            server = await nursery.start(start)
            tasks, open_files = trio.lowlevel.current_statistics().tasks_living, descriptors()
            peer = RawPeer(await trio.open_tcp_stream("127.0.0.1", server.port))
            await peer.request()
            with trio.fail_after(5):
                await self.talking.wait()
            loopback("down")
            cut = trio.current_time()
            with trio.move_on_after(20):
                await self.over.wait()
                while server.connections:
                    await trio.sleep(0.01)
            peer.stream.socket.close()  # type: ignore[attr-defined]
            await trio.sleep(0.1)
            self.told["seconds"] = self.told.pop("at", trio.current_time()) - cut
            self.told["descriptors"] = descriptors() - open_files
            # The attendant, once it has somebody to look after, stays.
            self.told["tasks"] = trio.lowlevel.current_statistics().tasks_living - tasks
            nursery.cancel_scope.cancel()
        return self.told


if __name__ == "__main__":
    print(json.dumps(trio.run(Scenario().run, sys.argv[1])))
