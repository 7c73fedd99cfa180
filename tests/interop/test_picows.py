"""`picows`, a client in Cython, against the echo server, with and without TLS."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

if TYPE_CHECKING:
    from conftest import EchoServer


class Listener(WSListener):
    """Keeps the frames in order; what it is given is valid during the call only."""

    def __init__(self) -> None:
        self.frames: asyncio.Queue[tuple[WSMsgType, bytes, bool]] = asyncio.Queue()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        self.frames.put_nowait((frame.msg_type, frame.get_payload_as_bytes(), frame.fin))

    async def message(self) -> bytes:
        """The next message, its fragments put together."""
        whole = b""
        while True:
            _, payload, fin = await self.frames.get()
            whole += payload
            if fin:
                return whole


def converse(server: EchoServer, what: Callable[[WSTransport, Listener], Awaitable[None]]) -> None:
    async def main() -> None:
        context = ssl.create_default_context(cafile=server.ca) if server.ca else None
        async with asyncio.timeout(30):
            transport, listener = await ws_connect(Listener, server.url, ssl_context=context)
            assert isinstance(listener, Listener)
            await what(transport, listener)
            await transport.wait_disconnected()

    asyncio.run(main())


def test_messages_echo_and_the_clients_close_is_answered(echo_server: EchoServer) -> None:
    async def what(transport: WSTransport, listener: Listener) -> None:
        for payload in (b"hello", "héllo 🐟".encode(), b"", "é".encode() * 500_000):
            transport.send(WSMsgType.TEXT, payload)
            assert await listener.message() == payload
        for payload in (b"\x00\xff", bytes(range(256)) * 4096):
            transport.send(WSMsgType.BINARY, payload)
            assert await listener.message() == payload
        transport.send_ping(b"there?")
        assert await listener.frames.get() == (WSMsgType.PONG, b"there?", True)
        transport.send_close(4321, b"from the client")
        kind, payload, _ = await listener.frames.get()
        assert (kind, payload[:2]) == (WSMsgType.CLOSE, (4321).to_bytes(2, "big"))
        transport.disconnect()

    converse(echo_server, what)


def test_the_client_sees_1001_when_the_server_is_interrupted(echo_server: EchoServer) -> None:
    async def what(transport: WSTransport, listener: Listener) -> None:
        transport.send(WSMsgType.TEXT, b"here")
        assert await listener.message() == b"here"
        interrupting = asyncio.get_running_loop().run_in_executor(None, echo_server.interrupt)
        kind, payload, _ = await listener.frames.get()
        assert (kind, payload) == (WSMsgType.CLOSE, b"\x03\xe9")
        transport.send_close(1001)
        transport.disconnect()
        assert await interrupting == 0

    converse(echo_server, what)
