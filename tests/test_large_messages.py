"""Large messages over a real socket, whose kernel takes them in parts.

Lives here: that nothing is torn, copied or changed where payloads are not joined to their heads.
Must never live here: limits, compression.
"""

from __future__ import annotations

import socket
import sys
import tracemalloc

import pytest
import trio

from trio_ws import Limits, WebSocket, connect_stream, serve_stream

MIB = 1 << 20
SIZES = [0, 65535, 65536, 65537, 1, 3 * MIB, 126, 70_000, 5 * MIB]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="one descriptor, many buffers")


def pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    near, far = socket.socketpair()
    return tuple(  # type: ignore[return-value]
        trio.SocketStream(trio.socket.from_stdlib_socket(end)) for end in (near, far)
    )


def payload(size: int) -> bytes:
    """No two neighbourhoods look alike."""
    return b"".join(number.to_bytes(4, "big") for number in range(size // 4 + 1))[:size]


async def test_large_and_small_messages_arrive_whole_and_in_order() -> None:
    """In both directions, of every type."""
    limits = Limits(max_message=8 * MIB, max_outbox=16 * MIB)
    sent: list[str | bytes] = [payload(size) for size in SIZES]
    sent[3:3] = ["between", payload(80_000).hex()]

    async def handler(ws: WebSocket) -> None:
        for message in sent:
            await ws.send(message)
        assert [await ws.receive() for _ in sent] == sent

    near, far = pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: serve_stream(
            handler, near, limits=limits, raise_handler_errors=True,
        ))  # fmt: skip
        async with connect_stream(far, "ws://test/", limits=limits) as ws:
            assert [await ws.receive() for _ in sent] == sent
            for message in sent:
                await ws.send(message)
            await ws.wait_closed()


async def test_what_can_change_is_not_held() -> None:
    """A bytearray, a view of one, may be changed as soon as `send` has returned."""
    buffer = bytearray(payload(2 * MIB))
    before = bytes(buffer)

    async def handler(ws: WebSocket) -> None:
        for message in (buffer, memoryview(buffer)):
            await ws.send(message)
        buffer[:] = bytes(len(buffer))

    limits = Limits(max_message=8 * MIB, max_outbox=16 * MIB)
    near, far = pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: serve_stream(handler, near, limits=limits))
        async with connect_stream(far, "ws://test/", limits=limits) as ws:
            assert [await ws.receive(), await ws.receive()] == [before, before]


async def test_a_large_message_is_not_copied() -> None:
    """A server that sends one and the same bytes needs no memory of their size."""
    message = payload(8 * MIB)
    peak = 0

    async def handler(ws: WebSocket) -> None:
        nonlocal peak
        await ws.receive()
        tracemalloc.start()
        try:
            await ws.send(message)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    near, far = pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: serve_stream(handler, near, raise_handler_errors=True))
        async with connect_stream(far, "ws://test/", limits=Limits(max_message=9 * MIB)) as ws:
            await ws.send("now")
            assert await ws.receive() == message
    assert 0 < peak < MIB
