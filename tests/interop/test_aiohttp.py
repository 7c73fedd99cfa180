"""`aiohttp`'s client against the echo server, with and without TLS and compression."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import aiohttp
import pytest

if TYPE_CHECKING:
    from conftest import EchoServer

Client = aiohttp.ClientWebSocketResponse


@asynccontextmanager
async def connected(server: EchoServer, compress: int) -> AsyncIterator[Client]:
    context = ssl.create_default_context(cafile=server.ca) if server.ca else True
    async with aiohttp.ClientSession() as session:
        async with session.ws_connect(
            server.url, ssl=context, compress=compress, max_msg_size=2**24
        ) as client:
            yield client


def converse(
    server: EchoServer, what: Callable[[Client], Awaitable[None]], compress: int = 0
) -> None:
    async def main() -> None:
        async with asyncio.timeout(30):
            async with connected(server, compress) as client:
                await what(client)

    asyncio.run(main())


@pytest.mark.parametrize("compress", [0, 15])
def test_messages_echo(echo_server: EchoServer, compress: int) -> None:
    async def what(client: Client) -> None:
        for text in ("hello", "héllo 🐟", "", "é" * 500_000):
            await client.send_str(text)
            assert await client.receive_str() == text
        for data in (b"\x00\x01\xfe\xff", b"", bytes(range(256)) * 4096):
            await client.send_bytes(data)
            assert await client.receive_bytes() == data

    converse(echo_server, what, compress)


def test_the_clients_close_is_answered(echo_server: EchoServer) -> None:
    async def what(client: Client) -> None:
        await client.close(code=4321, message=b"from the client")
        assert client.close_code == 4321

    converse(echo_server, what)


def test_the_client_sees_1001_when_the_server_is_interrupted(echo_server: EchoServer) -> None:
    async def what(client: Client) -> None:
        await client.send_str("here")
        assert await client.receive_str() == "here"
        interrupting = asyncio.get_running_loop().run_in_executor(None, echo_server.interrupt)
        message = await client.receive()
        assert message.type is aiohttp.WSMsgType.CLOSE
        assert message.data == 1001
        assert await interrupting == 0

    converse(echo_server, what)
