"""The servers on asyncio under measurement, with asyncio's own loop.

Lives here: what a user of each library would write to echo messages, and to tell one to all.
Must never live here: trio, load, clocks, processes; tuning of one server that the others do not
get (every library runs with its defaults); an import of a library at module level.
"""

# ruff: noqa: PLC0415 -- imports inside functions, see the law above

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import web
    from picows import WSFrame, WSTransport, WSUpgradeRequest

    from benchmarks.servers import Role

HOST: Final = "127.0.0.1"


async def serve_websockets(role: Role, started: Callable[[int], None]) -> None:
    """The asyncio server of websockets, and its `broadcast`."""
    from websockets.asyncio.server import ServerConnection, broadcast, serve

    members: set[ServerConnection] = set()

    async def echo(ws: ServerConnection) -> None:
        async for message in ws:
            await ws.send(message)

    async def publish(ws: ServerConnection) -> None:
        members.add(ws)
        try:
            async for message in ws:
                broadcast(members, message)
        finally:
            members.discard(ws)

    async with serve(publish if role == "room" else echo, HOST, 0) as server:
        started(next(iter(server.sockets)).getsockname()[1])
        await asyncio.Event().wait()


async def serve_aiohttp(role: Role, started: Callable[[int], None]) -> None:
    """aiohttp. It has no broadcast: a loop."""
    from aiohttp import WSMsgType, web

    members: set[web.WebSocketResponse] = set()

    async def echo(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        async for message in ws:
            if message.type is WSMsgType.BINARY:
                await ws.send_bytes(message.data)
        return ws

    async def publish(request: web.Request) -> web.WebSocketResponse:
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
    application.router.add_get("/", publish if role == "room" else echo)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, HOST, 0).start()
    started(runner.addresses[0][1])
    await asyncio.Event().wait()


async def serve_picows(role: Role, started: Callable[[int], None]) -> None:
    """picows, as its documentation echoes: frames, by callbacks. It has no broadcast: a loop over
    its transports, which never waits."""
    from picows import WSListener, WSMsgType, ws_create_server

    members: set[WSTransport] = set()

    class Echo(WSListener):  # type: ignore[misc, unused-ignore]  # untyped base
        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            if frame.msg_type == WSMsgType.CLOSE:
                transport.send_close(frame.get_close_code(), frame.get_close_message())
                transport.disconnect()
            else:
                transport.send(frame.msg_type, frame.get_payload_as_bytes())

    class Publish(WSListener):  # type: ignore[misc, unused-ignore]  # untyped base
        def on_ws_connected(self, transport: WSTransport) -> None:
            members.add(transport)

        def on_ws_disconnected(self, transport: WSTransport) -> None:
            members.discard(transport)

        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            if frame.msg_type == WSMsgType.CLOSE:
                transport.send_close(frame.get_close_code(), frame.get_close_message())
                transport.disconnect()
                return
            payload = frame.get_payload_as_bytes()
            for member in members:
                member.send(WSMsgType.BINARY, payload)

    def factory(_: WSUpgradeRequest) -> WSListener:
        return Publish() if role == "room" else Echo()

    server = await ws_create_server(factory, HOST, 0)
    started(server.sockets[0].getsockname()[1])
    await server.serve_forever()
