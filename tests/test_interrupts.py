"""KeyboardInterrupt at every step, and between any two lines of ours.

Lives here: sweeps with SIGINT over the public calls and over `serve_stream`. Must never live here:
signals that a program handles by itself (the examples' tests send those to processes).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from trio_ws import Deflate, WebSocket, connect_stream, serve_stream
from trio_ws.testing import (
    TEXT,
    ChunkedStream,
    RawPeer,
    StallingStream,
    Target,
    encode_frame,
    interrupt_at_every_step,
    open_websocket,
)

Call = Callable[[WebSocket], Awaitable[object]]

CALLS: dict[str, Call] = {
    "send": lambda ws: ws.send(b"a" * 40),
    "receive": lambda ws: ws.receive(),
    "ping": lambda ws: ws.ping(),
    "close": lambda ws: ws.close(),
    "wait_closed": lambda ws: ws.wait_closed(),
}


async def client(peer: RawPeer, *, shakes_hands: bool = False) -> None:
    """Say hello, read to the end, answer the Close: what arrives is held to be whole frames."""
    try:
        if shakes_hands:
            await peer.request()
        await peer.send_message("hello")
        await peer.expect_close()
        await peer.send_close(1000)
        await peer.expect_eof()
    except (trio.EndOfChannel, trio.BrokenResourceError):
        pass
    except AssertionError:
        assert b"101" not in peer.received_bytes
        assert not peer.frames


@pytest.mark.row("C6")
@pytest.mark.parametrize("inside", [None, "trio_ws/_"], ids=["steps", "lines"])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_an_interrupt_tears_nothing(call: Call, inside: str | None) -> None:
    """The interrupt comes out of the call, the stream is closed, whole frames have arrived."""

    async def scenario(target: Target) -> None:
        near, far = trio.testing.memory_stream_pair()
        stream = ChunkedStream(StallingStream(near, after=10, seconds=1), 7)
        target.watch(stream)
        peer = RawPeer(far)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client, peer)
            async with open_websocket(stream) as ws:
                async with target:
                    with trio.move_on_after(5):
                        await call(ws)
            assert stream.closed
        assert not peer.partial

    report = interrupt_at_every_step(scenario, inside=inside)
    print(report)
    assert report.points


@pytest.mark.row("C6")
@pytest.mark.parametrize(
    ("inside", "stride"),
    [(None, 1), ("trio_ws/_", 11), ("trio_ws/_serv", 1)],
    ids=["steps", "lines", "servers-lines"],
)
def test_an_interrupt_during_serve_stream_tears_nothing(inside: str | None, stride: int) -> None:
    """From the first byte of the handshake to the last of the close: the interrupt comes out, the
    stream is closed, the peer has whole frames only."""

    async def scenario(target: Target) -> None:
        near, far = trio.testing.memory_stream_pair()
        stream = ChunkedStream(near, 40)
        target.watch(stream)
        peer = RawPeer(far)

        async def handler(ws: WebSocket) -> None:
            await ws.send(await ws.receive())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: client(peer, shakes_hands=True))
            async with target:
                await serve_stream(handler, stream)
            # Before its first read, what it was given still is the caller's.
            assert stream.closed or (inside is not None and not stream.received)
            await stream.aclose()

    report = interrupt_at_every_step(scenario, inside=inside, stride=stride)
    print(report)
    assert report.points


@pytest.mark.row("C6")
def test_an_interrupt_within_send_leaves_the_compressor_in_step() -> None:
    """What was compressed is sent, interrupt or not: the peer's context fits what follows."""
    text = "{} says the same as all the others, and always the same"
    first, second, third = map(text.format, ("One", "Two", "Three"))

    async def scenario(target: Target) -> None:
        received: list[str | bytes] = []
        near, far = trio.testing.memory_stream_pair()

        async def collect(ws: WebSocket) -> None:
            received.extend([message async for message in ws])

        deflate = Deflate(threshold=0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: serve_stream(collect, far, compression=deflate))
            async with connect_stream(near, "ws://localhost/", compression=deflate) as ws:
                await ws.send(first)
                async with target:
                    await ws.send(second)
                await ws.send(third)
        assert received in ([first, second, third], [first, third])

    report = interrupt_at_every_step(scenario, inside="trio_ws/_permessage")
    print(report)
    assert report.points > 4


@pytest.mark.row("C6")
@pytest.mark.parametrize("ready", [True, False], ids=["ready", "awaited"])
def test_an_interrupt_within_receive_loses_no_message(ready: bool) -> None:
    """What was taken from the connection is returned, and the next may receive."""
    texts = ["one", "two", "three"]

    async def scenario(target: Target) -> None:
        received: list[str | bytes] = []
        near, far = trio.testing.memory_stream_pair()
        peer = RawPeer(far)
        async with open_websocket(near) as ws:
            await peer.send_raw(b"".join(map(text_frame, texts)))
            if ready:
                received.append(await ws.receive())
            async with target:
                received.append(await ws.receive())
            while len(received) < len(texts):
                received.append(await ws.receive())
            await peer.send_close()
        assert received == texts

    report = interrupt_at_every_step(scenario, inside="trio_ws/_websocket")
    print(report)
    assert report.points > 4


def text_frame(text: str) -> bytes:
    return encode_frame(TEXT, text.encode(), masked=True)
