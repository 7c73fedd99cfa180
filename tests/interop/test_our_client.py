"""Our client against other people's servers: node's `ws`, Python's `websockets`, `aiohttp`.

Each with and without TLS, with and without compression.
"""

from __future__ import annotations

import ssl
import sys
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme

from trio_ws import Close, ConnectionClosed, Deflate, Limits, WebSocket, connect, reconnect

sys.path.insert(0, str(Path(__file__).parent))
from servers import SERVERS

MESSAGES: list[str | bytes] = [
    *("hello", "héllo 🐟", "", b"\x00\x01\xfe\xff", b""),
    *(bytes(range(256)) * 4096, "é" * 500_000, "x" * 200_000),
]


@dataclass(frozen=True, kw_only=True)
class There:
    """A server of somebody else's, and how to reach it."""

    url: str
    options: dict[str, Any]

    def connect(self, **options: Any) -> AbstractAsyncContextManager[WebSocket]:
        return connect(self.url, **self.options, **options)


@pytest.fixture(params=["ws", "wss"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[None, Deflate(), Deflate(server_max_window_bits=15, threshold=0)])
def compression(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=list(SERVERS))
def there(
    request: pytest.FixtureRequest,
    scheme: str,
    compression: Deflate | None,
    ca: trustme.CA,
    client_ssl_context: ssl.SSLContext,
    tmp_path: Path,
) -> Iterator[There]:
    tls = None
    options: dict[str, Any] = {"proxy": None, "compression": compression}
    if scheme == "wss":
        tls = (tmp_path / "cert.pem", tmp_path / "key.pem")
        issued = ca.issue_cert("localhost")
        issued.cert_chain_pems[0].write_to_path(tls[0])
        issued.private_key_pem.write_to_path(tls[1])
        options["ssl_context"] = client_ssl_context
    with SERVERS[request.param](tls) as port:
        yield There(url=f"{scheme}://localhost:{port}/", options=options)


async def test_messages_echo(there: There, compression: Deflate | None) -> None:
    with trio.fail_after(30):
        async with there.connect(limits=Limits(max_message=2**22)) as ws:
            for message in MESSAGES:
                await ws.send(message)
                assert await ws.receive() == message
            assert ws.response is not None
            chosen = ws.response.header("sec-websocket-extensions")
            assert compression is not None or chosen is None
        assert ws.closed == Close(code=1000, initiator="local")


async def test_many_messages_under_way_at_once_come_back_in_order(there: There) -> None:
    with trio.fail_after(30):
        async with there.connect() as ws:
            async with trio.open_nursery() as nursery:

                async def send() -> None:
                    for number in range(500):
                        await ws.send(f"{number}" * 40)

                nursery.start_soon(send)
                for number in range(500):
                    assert await ws.receive() == f"{number}" * 40


async def test_a_message_in_pieces_arrives_whole(there: There) -> None:
    with trio.fail_after(30):
        async with there.connect() as ws:
            async with ws.message_writer("text") as out:
                for piece in ("in ", "three ", "parts"):
                    await out.send(piece)
            assert await ws.receive() == "in three parts"


async def test_a_ping_is_answered(there: There) -> None:
    with trio.fail_after(30):
        async with there.connect() as ws:
            assert await ws.ping() < 10


async def test_our_close_is_answered(there: There) -> None:
    with trio.fail_after(30):
        async with there.connect() as ws:
            await ws.close(4321, "from the client")
            assert ws.closed is not None
            # aiohttp answers every Close with 1000.
            assert ws.closed.code == (1000 if "aiohttp" in str(ws.response) else 4321)
            assert ws.closed.initiator == "local"


async def test_the_servers_close_is_told(there: There) -> None:
    with trio.fail_after(30):
        async with there.connect() as ws:
            await ws.send("close 4000 why")
            with pytest.raises(ConnectionClosed) as caught:
                await ws.receive()
            assert caught.value.close == Close(code=4000, reason="why", initiator="peer")


async def test_the_subprotocol_is_agreed(there: There) -> None:
    with trio.fail_after(30):
        async with there.connect(subprotocols=["other", "echo"]) as ws:
            assert ws.subprotocol == "echo"


async def test_cancellation_is_quick(there: There) -> None:
    """The server answers the Close 1001, so that the grace of a second is not used up."""
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            async with there.connect() as ws:
                await ws.send("hello")
                assert await ws.receive() == "hello"
                nursery.cancel_scope.cancel()
        assert ws.closed is not None


async def test_reconnect_meets_the_same_server_again(there: There) -> None:
    with trio.fail_after(30):
        seen = 0
        async with reconnect(there.url, **there.options) as connections:
            async for ws in connections:
                await ws.send("hello")
                assert await ws.receive() == "hello"
                seen += 1
                if seen == 2:
                    break
                await ws.send("close 1012 restart")
                await ws.wait_closed()
