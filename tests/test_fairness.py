"""A busy connection leaves others their turn: how much one task may do within one scheduler pass.

Lives here: the bounds that docs/performance.md states, counted in passes. Must never live here:
clocks.
"""

from __future__ import annotations

import socket
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

import trio_ws
from trio_ws._protocol import MAX_EVENTS
from trio_ws._services import FULL_CHECKPOINT_EVERY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

REQUEST = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
MESSAGE = b"\x82\x81\x00\x00\x00\x00m"
PING = b"\x89\x81\x00\x00\x00\x00p"
CLOSE = b"\x88\x82\x00\x00\x00\x00\x03\xe8"


class Passes(trio.abc.Instrument):
    """Counts scheduler passes: in each, every task that can go on does so once."""

    def __init__(self) -> None:
        self.now = 0
        trio.lowlevel.add_instrument(self)

    def before_io_wait(self, timeout: float) -> None:
        self.now += 1


def socket_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    """Two ends that the kernel buffers, so that much is there at once."""
    ends = socket.socketpair()
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    ours, theirs = (trio.SocketStream(trio.socket.from_stdlib_socket(end)) for end in ends)
    return ours, theirs


@asynccontextmanager
async def served(
    handler: Callable[[trio_ws.WebSocket], Awaitable[None]],
) -> AsyncIterator[trio.SocketStream]:
    """A peer's bare end of a connection that `handler` has; the 101 has been read."""
    ours, theirs = socket_pair()
    async with trio.open_nursery() as nursery, theirs:
        nursery.start_soon(trio_ws.serve_stream, handler, ours)
        await theirs.send_all(REQUEST)
        head = b""
        while not head.endswith(b"\r\n\r\n"):  # no handler speaks first
            data = await theirs.receive_some()
            assert data, "no 101"
            head += data
        yield theirs


async def test_receiving_what_is_there_lets_others_run() -> None:
    """Of a thousand messages that one read brought, at most the bound are received in a pass."""
    passes = Passes()
    received: Counter[int] = Counter()

    async def handler(ws: trio_ws.WebSocket) -> None:
        async for _ in ws:
            received[passes.now] += 1

    async with served(handler) as peer:
        await peer.send_all(MESSAGE * 1000 + CLOSE)
        await peer.receive_some()
    assert received.total() == 1000
    assert 1 < max(received.values()) <= FULL_CHECKPOINT_EVERY


async def test_echoing_what_is_there_lets_others_run() -> None:
    """Receiving and sending are both calls: no more of them than the bound in a pass."""
    passes = Passes()
    calls: Counter[int] = Counter()

    async def handler(ws: trio_ws.WebSocket) -> None:
        async for message in ws:
            calls[passes.now] += 1
            await ws.send(message)
            calls[passes.now] += 1

    async with served(handler) as peer:
        await peer.send_all(MESSAGE * 1000)
        replies = b""
        while len(replies) < 3000:
            replies += await peer.receive_some()
        await peer.send_all(CLOSE)
    assert calls.total() == 2000
    assert 1 < max(calls.values()) <= FULL_CHECKPOINT_EVERY


async def test_sending_lets_others_run() -> None:
    """A handler that only sends, to a peer that takes it all, does not keep the processor."""
    passes = Passes()
    sent: Counter[int] = Counter()

    async def handler(ws: trio_ws.WebSocket) -> None:
        await ws.receive()
        for _ in range(1000):
            await ws.send(b"m")
            sent[passes.now] += 1

    async with served(handler) as peer:
        await peer.send_all(MESSAGE)
        received = 0
        while received < 3000:
            received += len(await peer.receive_some())
        await peer.send_all(CLOSE)
    assert sent.total() == 1000
    assert 1 < max(sent.values()) <= FULL_CHECKPOINT_EVERY


async def test_a_flood_of_pings_lets_others_run() -> None:
    """At most `MAX_EVENTS` frames of a read are looked at in a pass, whoever waits for more."""
    passes = Passes()
    count = 5000
    before = after = 0

    async def handler(ws: trio_ws.WebSocket) -> None:
        nonlocal before, after
        before = passes.now
        assert await ws.receive() == b"m"
        after = passes.now

    async with served(handler) as peer:
        await peer.send_all(PING * count + MESSAGE + CLOSE)
        async for _ in peer:
            pass
    assert after - before >= count // MAX_EVENTS


async def test_an_echo_beside_a_flood_takes_a_bounded_number_of_passes() -> None:
    """While one connection always has messages to receive, another one's echo comes back within a
    few passes: one brings it to the handler, one brings the reply to its peer."""
    passes = Passes()
    flooded = 0

    async def sink(ws: trio_ws.WebSocket) -> None:
        nonlocal flooded
        async for _ in ws:
            flooded += 1

    async def echo(ws: trio_ws.WebSocket) -> None:
        async for message in ws:
            await ws.send(message)

    async def flood(peer: trio.SocketStream) -> None:
        while True:
            await peer.send_all(MESSAGE * 2000)

    took: list[int] = []
    async with served(sink) as noisy, served(echo) as quiet, trio.open_nursery() as nursery:
        nursery.start_soon(flood, noisy)
        while not flooded:
            await trio.lowlevel.checkpoint()
        for _ in range(10):
            began, had = passes.now, flooded
            await quiet.send_all(MESSAGE)
            assert await quiet.receive_some() == b"\x82\x01m"
            took.append(passes.now - began)
            assert flooded > had
        nursery.cancel_scope.cancel()
    assert max(took) <= 4
