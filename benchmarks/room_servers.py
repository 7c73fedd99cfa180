"""The broadcasting servers under measurement: what one connection says, all of them hear.

Lives here: what a user of each library would write for that, and the process around it.
Must never live here: load, clocks or statistics; tuning of one server that the others do not get
(every library runs with its defaults, asyncio with its own loop); an import of a library at module
level.

Run ``python -m benchmarks.room_servers NAME`` to get one by hand; see `servers`.
"""

# ruff: noqa: PLC0415 -- imports inside functions, see the law above

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import importlib.util
import os
import sys
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal

import trio

from benchmarks.servers import LIFETIME

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from aiohttp import web
    from picows import WSFrame, WSTransport, WSUpgradeRequest

Started = "Callable[[int], None]"
"""Takes the port once the server listens."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Adapter:
    """One server.

    Attributes:
        distribution: the package whose version is printed.
        loop: what runs it.
        how: how it tells one message to many.
        serve: listen on a free port of 127.0.0.1, report it, serve until cancelled.
    """

    distribution: str
    loop: Literal["trio", "asyncio"]
    how: str
    serve: Callable[[Callable[[int], None]], Awaitable[None]]

    def version(self) -> str | None:
        """The installed version; "source tree" if only importable; None if it is not there."""
        try:
            return importlib.metadata.version(self.distribution)
        except importlib.metadata.PackageNotFoundError:
            module = self.distribution.replace("-", "_")
            return "source tree" if importlib.util.find_spec(module) else None


async def serve_trio_ws(started: Callable[[int], None]) -> None:
    """trio_ws: a `Room`."""
    import trio_ws

    room = trio_ws.Room()

    async def handler(ws: trio_ws.WebSocket) -> None:
        async with room.join(ws):
            async for message in ws:
                room.publish(message)

    async with trio.open_nursery() as nursery:
        server = await nursery.start(
            lambda **status: trio_ws.serve(handler, 0, host="127.0.0.1", **status)
        )
        started(server.port)


async def serve_trio_websocket(started: Callable[[int], None]) -> None:
    """trio-websocket has no broadcast: a loop."""
    import trio_websocket

    members: set[trio_websocket.WebSocketConnection] = set()

    async def handler(request: trio_websocket.WebSocketRequest) -> None:
        ws = await request.accept()
        members.add(ws)
        try:
            while True:
                message = await ws.get_message()
                for member in list(members):
                    await member.send_message(message)
        except trio_websocket.ConnectionClosed:
            pass
        finally:
            members.discard(ws)

    async with trio.open_nursery() as nursery:
        server = await nursery.start(trio_websocket.serve_websocket, handler, "127.0.0.1", 0, None)
        started(server.port)


async def serve_websockets_trio(started: Callable[[int], None]) -> None:
    """The trio server of websockets, and its `broadcast`."""
    from websockets.trio.connection import broadcast
    from websockets.trio.server import ServerConnection, serve

    members: set[ServerConnection] = set()

    async def handler(ws: ServerConnection) -> None:
        members.add(ws)
        try:
            async for message in ws:
                await broadcast(members, message)
        finally:
            members.discard(ws)

    async with trio.open_nursery() as nursery:
        server = await nursery.start(lambda **status: serve(handler, 0, host="127.0.0.1", **status))
        started(server.listeners[0].socket.getsockname()[1])


async def serve_websockets_asyncio(started: Callable[[int], None]) -> None:
    """The asyncio server of websockets, and its `broadcast`."""
    from websockets.asyncio.server import ServerConnection, broadcast, serve

    members: set[ServerConnection] = set()

    async def handler(ws: ServerConnection) -> None:
        members.add(ws)
        try:
            async for message in ws:
                broadcast(members, message)
        finally:
            members.discard(ws)

    async with serve(handler, "127.0.0.1", 0) as server:
        started(next(iter(server.sockets)).getsockname()[1])
        await asyncio.Event().wait()


async def serve_aiohttp(started: Callable[[int], None]) -> None:
    """aiohttp has no broadcast: a loop."""
    from aiohttp import WSMsgType, web

    members: set[web.WebSocketResponse] = set()

    async def handler(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        members.add(ws)
        try:
            async for message in ws:
                if message.type is WSMsgType.BINARY:
                    for member in list(members):
                        await member.send_bytes(message.data)
        finally:
            members.discard(ws)
        return ws

    application = web.Application()
    application.router.add_get("/", handler)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        started(runner.addresses[0][1])
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


async def serve_picows(started: Callable[[int], None]) -> None:
    """picows has no broadcast: a loop over its transports, which never waits."""
    from picows import WSListener, WSMsgType, ws_create_server

    members: set[WSTransport] = set()

    class Listener(WSListener):  # type: ignore[misc]  # untyped base
        def on_ws_connected(self, transport: WSTransport) -> None:
            members.add(transport)

        def on_ws_disconnected(self, transport: WSTransport) -> None:
            members.discard(transport)

        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            if frame.msg_type is WSMsgType.CLOSE or frame.msg_type == WSMsgType.CLOSE:
                transport.send_close(frame.get_close_code(), frame.get_close_message())
                transport.disconnect()
                return
            payload = frame.get_payload_as_bytes()
            for member in members:
                member.send(WSMsgType.BINARY, payload)

    def factory(_: WSUpgradeRequest) -> Listener:
        return Listener()

    server = await ws_create_server(factory, "127.0.0.1", 0)
    started(server.sockets[0].getsockname()[1])
    await server.serve_forever()


ADAPTERS: Final[Mapping[str, Adapter]] = MappingProxyType(
    {
        "trio_ws": Adapter(
            distribution="trio-ws", loop="trio", how="Room.publish", serve=serve_trio_ws
        ),
        "trio-websocket": Adapter(
            distribution="trio-websocket", loop="trio", how="a loop", serve=serve_trio_websocket
        ),
        "websockets-trio": Adapter(
            distribution="websockets", loop="trio", how="broadcast", serve=serve_websockets_trio
        ),
        "websockets-asyncio": Adapter(
            distribution="websockets",
            loop="asyncio",
            how="broadcast",
            serve=serve_websockets_asyncio,
        ),
        "aiohttp": Adapter(
            distribution="aiohttp", loop="asyncio", how="a loop", serve=serve_aiohttp
        ),
        "picows": Adapter(distribution="picows", loop="asyncio", how="a loop", serve=serve_picows),
    }
)
"""Every server by the name it has on the command line and in the tables."""


def _report(port: int) -> None:
    print(port, flush=True)


async def _serve_with_trio(adapter: Adapter) -> None:
    with trio.move_on_after(LIFETIME):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(adapter.serve, _report)
            async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as lifeline:
                while await lifeline.receive_some():
                    pass
            nursery.cancel_scope.cancel()


async def _serve_with_asyncio(adapter: Adapter) -> None:
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), lambda: os.read(0, 4096) or over.set())
    serving = asyncio.ensure_future(adapter.serve(_report))
    ending = asyncio.ensure_future(over.wait())
    await asyncio.wait({serving, ending}, timeout=LIFETIME, return_when="FIRST_COMPLETED")
    ending.cancel()
    serving.cancel()
    await asyncio.wait({serving}, timeout=1)


def main(arguments: list[str] | None = None) -> None:
    """Serve one adapter until standard input ends."""
    parser = argparse.ArgumentParser(description="One room on a free port of 127.0.0.1.")
    parser.add_argument("name", choices=ADAPTERS)
    parser.add_argument("--core", type=int, help="the only core it may use")
    options: Any = parser.parse_args(arguments)
    if options.core is not None:
        os.sched_setaffinity(0, {options.core})
    adapter = ADAPTERS[options.name]
    if adapter.loop == "trio":
        trio.run(_serve_with_trio, adapter)
    else:
        asyncio.run(_serve_with_asyncio(adapter))


if __name__ == "__main__":
    main()
