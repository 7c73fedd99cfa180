"""The servers under measurement: one small adapter each, one process each.

Lives here: what a user of each library would write to echo messages, and the process around it.
Must never live here: load, clocks or statistics; tuning of one server that the others do not get
(every library runs with its defaults); an import of a library at module level, so that a process
holds only the one it measures.

Run ``python -m benchmarks.servers NAME`` to get one by hand: it prints its port and serves until
its standard input ends, `LIFETIME` at the most.
"""

# ruff: noqa: PLC0415 -- imports inside functions, see the law above

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import importlib.util
import os
import select
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Protocol

import trio

from benchmarks import asyncio_servers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

ROOT: Final = Path(__file__).resolve().parent.parent
LIFETIME: Final = 600.0
"""Seconds after which a forgotten server ends by itself."""
START_TIMEOUT: Final = 20.0
STOP_TIMEOUT: Final = 5.0

_UPGRADED: Final = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
)


class Serve(Protocol):
    """Listen on a free port of 127.0.0.1, report it to `task_status`, serve until cancelled."""

    def __call__(self, *, task_status: trio.TaskStatus[int]) -> Awaitable[None]: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Adapter:
    """One server.

    Attributes:
        distribution: the package whose version is printed.
        serve: see `Serve`.
        unmasks: whether the reply to a frame is that frame unmasked (a WebSocket server) or the
            very bytes that were sent (the raw echo).
        asyncio: `serve` is one of `asyncio_servers` instead, and runs on asyncio's loop.
        library: whether it is one of the trio libraries that `trio_ws` is compared with.
    """

    distribution: str
    serve: Any  # Serve, or what `asyncio` says
    unmasks: bool = True
    library: bool = False
    asyncio: bool = False

    def version(self) -> str | None:
        """The installed version; "source tree" if only importable; None if it is not there."""
        try:
            return importlib.metadata.version(self.distribution)
        except importlib.metadata.PackageNotFoundError:
            module = self.distribution.replace("-", "_")
            return "source tree" if importlib.util.find_spec(module) else None


async def _upgrade(stream: trio.abc.Stream) -> bytes:
    """The least that makes a client believe: read a head, answer 101. Returns what followed."""
    head = b""
    while b"\r\n\r\n" not in head:
        data = await stream.receive_some()
        if not data:
            return b""
        head += data
    await stream.send_all(_UPGRADED)
    return bytes(head.partition(b"\r\n\r\n")[2])


async def _serve_streams(
    handler: Callable[[trio.SocketStream], Awaitable[object]], task_status: trio.TaskStatus[int]
) -> None:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    task_status.started(listener.socket.getsockname()[1])
    await trio.serve_listeners(handler, [listener])


async def serve_raw(*, task_status: trio.TaskStatus[int]) -> None:
    """The ceiling: trio's own stream, bytes back as they came, no frame ever looked at."""

    async def echo(stream: trio.SocketStream) -> None:
        await _upgrade(stream)
        async for data in stream:
            await stream.send_all(data)

    await _serve_streams(echo, task_status)


async def serve_wsproto(*, task_status: trio.TaskStatus[int]) -> None:
    """What the frame engine alone costs: a bare wsproto loop on trio's stream, nothing checked."""
    from wsproto.connection import Connection, ConnectionType
    from wsproto.events import CloseConnection, Message

    async def echo(stream: trio.SocketStream) -> None:
        connection = Connection(ConnectionType.SERVER, trailing_data=await _upgrade(stream))
        async for data in stream:
            connection.receive_data(bytes(data))
            reply = bytearray()
            for event in connection.events():
                if isinstance(event, Message):
                    reply += connection.send(event)
                elif isinstance(event, CloseConnection):
                    await stream.send_all(connection.send(event.response()))
                    return
            if reply:
                await stream.send_all(reply)

    await _serve_streams(echo, task_status)


async def serve_trio_websocket(*, task_status: trio.TaskStatus[int]) -> None:
    """trio-websocket."""
    import trio_websocket

    async def echo(request: trio_websocket.WebSocketRequest) -> None:
        ws = await request.accept()
        try:
            while True:
                await ws.send_message(await ws.get_message())
        except trio_websocket.ConnectionClosed:
            pass

    async with trio.open_nursery() as nursery:
        server = await nursery.start(trio_websocket.serve_websocket, echo, "127.0.0.1", 0, None)
        task_status.started(server.port)


async def serve_websockets(*, task_status: trio.TaskStatus[int]) -> None:
    """The trio server of websockets."""
    from websockets.trio.server import ServerConnection, serve

    async def echo(ws: ServerConnection) -> None:
        async for message in ws:
            await ws.send(message)

    async with trio.open_nursery() as nursery:
        server = await nursery.start(lambda **status: serve(echo, 0, host="127.0.0.1", **status))
        task_status.started(server.listeners[0].socket.getsockname()[1])


async def serve_trio_ws(*, task_status: trio.TaskStatus[int]) -> None:
    """trio_ws."""
    import trio_ws

    async def echo(ws: trio_ws.WebSocket) -> None:
        async for message in ws:
            await ws.send(message)

    async with trio.open_nursery() as nursery:
        server = await nursery.start(
            lambda **status: trio_ws.serve(echo, 0, host="127.0.0.1", **status)
        )
        task_status.started(server.port)


ADAPTERS: Final[Mapping[str, Adapter]] = MappingProxyType(
    {
        "raw": Adapter(distribution="trio", serve=serve_raw, unmasks=False),
        "wsproto": Adapter(distribution="wsproto", serve=serve_wsproto),
        "trio-websocket": Adapter(
            distribution="trio-websocket", serve=serve_trio_websocket, library=True
        ),
        "websockets": Adapter(distribution="websockets", serve=serve_websockets, library=True),
        "websockets-asyncio": Adapter(
            distribution="websockets", serve=asyncio_servers.serve_websockets, asyncio=True
        ),
        "aiohttp": Adapter(
            distribution="aiohttp", serve=asyncio_servers.serve_aiohttp, asyncio=True
        ),
        "picows": Adapter(distribution="picows", serve=asyncio_servers.serve_picows, asyncio=True),
        "trio_ws": Adapter(distribution="trio-ws", serve=serve_trio_ws),
    }
)
"""Every server by the name it has on the command line and in the tables."""


class ServerFailed(Exception):
    """A server process did not come up; what it had to say is on standard error."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerProcess:
    """A server that runs in a process of its own. Valid inside `running` only."""

    pid: int
    port: int

    def cpu_seconds(self) -> float:
        """CPU time of the process so far, user and system, all threads (clock_getcpuclockid).

        Read from outside through Linux' numbering of process clocks, in nanoseconds: the server
        runs no line of code for it, unlike with a question over a pipe, and /proc/PID/stat counts
        in hundredths of a second.
        """
        return time.clock_gettime((~self.pid << 3) | 2)


@contextmanager
def running(
    name: str, *, core: int | None, module: str = "benchmarks.servers"
) -> Iterator[ServerProcess]:
    """Start the server `name` of `module` pinned to `core` (None: wherever), and end it with the
    block.

    Raises:
        ServerFailed: it ended or said nothing within `START_TIMEOUT` seconds.
    """
    command = [sys.executable, "-m", module, name]
    if core is not None:
        command += ["--core", str(core)]
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        ready, _, _ = select.select([process.stdout], [], [], START_TIMEOUT)
        line = process.stdout.readline() if ready else ""
        if not line:
            raise ServerFailed(f"the server {name!r} did not start (process {process.pid})")
        yield ServerProcess(pid=process.pid, port=int(line))
    finally:
        process.stdin.close()
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


async def _serve_until_input_ends(adapter: Adapter) -> None:
    with trio.move_on_after(LIFETIME):
        async with trio.open_nursery() as nursery:
            port = await nursery.start(adapter.serve)
            print(port, flush=True)
            async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as lifeline:
                while await lifeline.receive_some():
                    pass
            nursery.cancel_scope.cancel()


def main(arguments: list[str] | None = None) -> None:
    """Serve one adapter until standard input ends."""
    parser = argparse.ArgumentParser(description="One echo server on a free port of 127.0.0.1.")
    parser.add_argument("name", choices=ADAPTERS)
    parser.add_argument("--core", type=int, help="the only core it may use")
    options: Any = parser.parse_args(arguments)
    if options.core is not None:
        os.sched_setaffinity(0, {options.core})
    adapter = ADAPTERS[options.name]
    if adapter.asyncio:
        asyncio.run(asyncio_servers.serve_until_input_ends(adapter.serve, LIFETIME))
    else:
        trio.run(_serve_until_input_ends, adapter)


if __name__ == "__main__":
    main()
