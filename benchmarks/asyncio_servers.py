"""The echo servers of asyncio under measurement, and the loop around them.

Lives here: what a user of each library would write to echo messages. Must never live here: trio,
load, clocks; tuning (every library runs with its defaults, asyncio with its own loop); an import of
a library at module level.
"""

# ruff: noqa: PLC0415 -- imports inside functions, see the law above

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp import web
    from picows import WSFrame, WSTransport, WSUpgradeRequest


async def serve_websockets(started: Callable[[int], None]) -> None:
    """The asyncio server of websockets."""
    from websockets.asyncio.server import ServerConnection, serve

    async def echo(ws: ServerConnection) -> None:
        async for message in ws:
            await ws.send(message)

    async with serve(echo, "127.0.0.1", 0) as server:
        started(next(iter(server.sockets)).getsockname()[1])
        await asyncio.Event().wait()


async def serve_aiohttp(started: Callable[[int], None]) -> None:
    """aiohttp."""
    from aiohttp import WSMsgType, web

    async def echo(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        async for message in ws:
            if message.type is WSMsgType.BINARY:
                await ws.send_bytes(message.data)
            elif message.type is WSMsgType.TEXT:
                await ws.send_str(message.data)
        return ws

    application = web.Application()
    application.router.add_get("/", echo)
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
    """picows, as its documentation echoes: frames, by callbacks."""
    from picows import WSListener, WSMsgType, ws_create_server

    class Listener(WSListener):  # type: ignore[misc]  # untyped base
        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            if frame.msg_type == WSMsgType.CLOSE:
                transport.send_close(frame.get_close_code(), frame.get_close_message())
                transport.disconnect()
            else:
                transport.send(frame.msg_type, frame.get_payload_as_bytes())

    def factory(_: WSUpgradeRequest) -> Listener:
        return Listener()

    server = await ws_create_server(factory, "127.0.0.1", 0)
    started(server.sockets[0].getsockname()[1])
    await server.serve_forever()


async def serve_until_input_ends(
    serve: Callable[[Callable[[int], None]], Awaitable[None]], lifetime: float
) -> None:
    """Serve until standard input ends, or `lifetime` seconds; print the port first."""
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), lambda: os.read(0, 4096) or over.set())
    serving = asyncio.ensure_future(serve(lambda port: print(port, flush=True)))
    ending = asyncio.ensure_future(over.wait())
    await asyncio.wait({serving, ending}, timeout=lifetime, return_when="FIRST_COMPLETED")
    ending.cancel()
    serving.cancel()
    await asyncio.wait({serving}, timeout=1)
