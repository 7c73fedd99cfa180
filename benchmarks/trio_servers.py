"""The servers on trio under measurement: the library, its two competitors, and what is below them.

Lives here: what a user of each library would write to echo messages, and to tell one to all.
Must never live here: load, clocks, processes; tuning of one server that the others do not get
(every library runs with its defaults); an import of a library at module level.
"""

# ruff: noqa: PLC0415 -- imports inside functions, see the law above

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from benchmarks.frames import UPGRADED

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from benchmarks.servers import Role

HOST: Final = "127.0.0.1"


async def _upgrade(stream: trio.abc.Stream) -> bytes:
    """The least that makes the load believe: read a head, answer 101. Returns what followed."""
    head = b""
    while b"\r\n\r\n" not in head:
        data = await stream.receive_some()
        if not data:
            return b""
        head += data
    await stream.send_all(UPGRADED)
    return bytes(head.partition(b"\r\n\r\n")[2])


async def _serve_streams(
    handler: Callable[[trio.SocketStream], Awaitable[object]], started: Callable[[int], None]
) -> None:
    [listener] = await trio.open_tcp_listeners(0, host=HOST)
    started(listener.socket.getsockname()[1])
    await trio.serve_listeners(handler, [listener])


async def serve_raw(_: Role, started: Callable[[int], None]) -> None:
    """The ceiling: trio's own stream, bytes back as they came, no frame ever looked at."""

    async def echo(stream: trio.SocketStream) -> None:
        await _upgrade(stream)
        async for data in stream:
            await stream.send_all(data)

    await _serve_streams(echo, started)


async def serve_wsproto(_: Role, started: Callable[[int], None]) -> None:
    """What the frame engine alone costs: a bare wsproto loop on trio's stream, nothing checked."""
    from wsproto.connection import Connection, ConnectionType
    from wsproto.events import BytesMessage, CloseConnection

    async def echo(stream: trio.SocketStream) -> None:
        connection = Connection(ConnectionType.SERVER, trailing_data=await _upgrade(stream))
        message = bytearray()
        async for data in stream:
            connection.receive_data(bytes(data))
            reply = bytearray()
            for event in connection.events():
                if isinstance(event, BytesMessage):
                    message += event.data
                    if event.message_finished:
                        reply += connection.send(BytesMessage(data=bytes(message)))
                        message.clear()
                elif isinstance(event, CloseConnection):
                    await stream.send_all(connection.send(event.response()))
                    return
            if reply:
                await stream.send_all(reply)

    await _serve_streams(echo, started)


async def serve_trio_websocket(role: Role, started: Callable[[int], None]) -> None:
    """trio-websocket. It has no broadcast: a loop."""
    import trio_websocket

    members: set[trio_websocket.WebSocketConnection] = set()

    async def echo(ws: trio_websocket.WebSocketConnection) -> None:
        while True:
            await ws.send_message(await ws.get_message())

    async def publish(ws: trio_websocket.WebSocketConnection) -> None:
        members.add(ws)
        try:
            while True:
                message = await ws.get_message()
                for member in list(members):
                    await member.send_message(message)
        finally:
            members.discard(ws)

    async def handler(request: trio_websocket.WebSocketRequest) -> None:
        ws = await request.accept()
        try:
            await (publish(ws) if role == "room" else echo(ws))
        except trio_websocket.ConnectionClosed:
            pass

    async with trio.open_nursery() as nursery:
        server = await nursery.start(trio_websocket.serve_websocket, handler, HOST, 0, None)
        started(server.port)


async def serve_websockets(role: Role, started: Callable[[int], None]) -> None:
    """The trio server of websockets, and its `broadcast`."""
    from websockets.trio.connection import broadcast
    from websockets.trio.server import ServerConnection, serve

    members: set[ServerConnection] = set()

    async def echo(ws: ServerConnection) -> None:
        async for message in ws:
            await ws.send(message)

    async def publish(ws: ServerConnection) -> None:
        members.add(ws)
        try:
            async for message in ws:
                await broadcast(members, message)
        finally:
            members.discard(ws)

    handler = publish if role == "room" else echo
    async with trio.open_nursery() as nursery:
        server = await nursery.start(lambda **status: serve(handler, 0, host=HOST, **status))
        started(server.listeners[0].socket.getsockname()[1])


async def serve_trio_ws(role: Role, started: Callable[[int], None]) -> None:
    """trio_ws, and its `Room`."""
    import trio_ws

    room = trio_ws.Room()

    async def echo(ws: trio_ws.WebSocket) -> None:
        async for message in ws:
            await ws.send(message)

    async def publish(ws: trio_ws.WebSocket) -> None:
        async with room.join(ws):
            async for message in ws:
                room.publish(message)

    handler = publish if role == "room" else echo
    async with trio.open_nursery() as nursery:
        server = await nursery.start(
            lambda **status: trio_ws.serve(handler, 0, host=HOST, **status)
        )
        started(server.port)
