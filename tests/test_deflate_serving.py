"""Compression on a server: who gets it, what goes over the wire, and cancellation beside it.

Lives here: `compression=` and `send(..., compress=...)` through the front door. Must never live
here: the rules of negotiation (test_deflate_negotiation) and of zlib's streams
(test_deflate_inbound, _outbound).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from trio_ws import Deflate, Limits, Policy, Server, WebSocket, serve, serve_stream
from trio_ws.testing import (
    BINARY,
    CLOSE,
    TEXT,
    ChunkedStream,
    Frame,
    RawPeer,
    StallingStream,
    Target,
    cancel_at_every_step,
)

RSV1 = 4
TAIL = b"\x00\x00\xff\xff"
NAME = "permessage-deflate"
HELLO = bytes.fromhex("f248cdc9c90700")


async def echo(ws: WebSocket) -> None:
    async for message in ws:
        await ws.send(message)


def offering(offer: str) -> list[tuple[bytes, bytes]]:
    return [(b"Sec-WebSocket-Extensions", offer.encode("latin-1"))]


def answer_in(head: bytes) -> str | None:
    found = re.search(rb"\r\nSec-WebSocket-Extensions: (.*)\r\n", head)
    return found and found[1].decode()


@asynccontextmanager
async def served(
    handler: Callable[[WebSocket], Awaitable[object]], **options: Any
) -> AsyncIterator[RawPeer]:
    """A server's one connection, with its client in the hands of the test."""
    near, far = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: serve_stream(handler, near, **options))
        async with RawPeer(far, allow_rsv=RSV1) as peer:
            yield peer


def inflated(frames: list[Frame]) -> list[bytes]:
    """Whole data messages in single frames, inflated with one context as RFC 7692 has it."""
    inflater = zlib.decompressobj(-15)
    return [
        inflater.decompress(frame.payload + TAIL) if frame.rsv else frame.payload
        for frame in frames
        if not frame.is_control
    ]


# -- the handshake -------------------------------------------------------------------------------


async def test_compression_is_off_unless_asked_for() -> None:
    """A server that was told nothing answers no offer, and RSV1 is then a protocol error."""
    async with served(echo) as peer:
        assert answer_in(await peer.request(headers=offering(NAME))) is None
        await peer.send_frame(TEXT, HELLO, rsv=RSV1)
        await peer.expect_close(1002)


@pytest.mark.row("A4")
@pytest.mark.parametrize(
    "bad",
    [
        "server_max_window_bits=abc",
        "server_max_window_bits=99",
        "server_max_window_bits=8",
        "server_max_window_bits=10; server_max_window_bits=10",
        "unknown",
        'server_max_window_bits="10',
        "\xff",
    ],
)
async def test_a_bad_offer_never_refuses_the_connection(bad: str) -> None:
    """101 without compression; or with it, if another offer is good. Messages pass either way."""
    own = Deflate(server_max_window_bits=15, client_max_window_bits=15)
    for lines, answer in (
        (offering(f"{NAME}; {bad}"), None),
        (offering(f"{NAME}; {bad}") + offering(f'{NAME}; server_max_window_bits="10"'),
         f"{NAME}; server_max_window_bits=10"),
    ):  # fmt: skip
        async with served(echo, compression=own) as peer:
            assert answer_in(await peer.request(headers=lines)) == answer
            await peer.send_message("plain")
            assert await peer.receive_message() == "plain"
            if answer:
                await peer.send_frame(TEXT, HELLO, rsv=RSV1)
                assert await peer.receive_message() == "Hello"


async def test_the_clients_parameters_bind_the_server() -> None:
    """What the 101 says is what happens: the window, and no context between messages."""
    pattern = bytes(range(100)) * 20
    async with served(echo, compression=Deflate(threshold=0, level=9)) as peer:
        offer = f"{NAME}; server_no_context_takeover; server_max_window_bits=9"
        answer = answer_in(await peer.request(headers=offering(offer)))
        assert answer == offer
        for _ in range(2):
            await peer.send_message(pattern)
            await peer.receive_message()
        for frame in peer.frames:
            assert frame.rsv == RSV1
            assert zlib.decompressobj(-9).decompress(frame.payload + TAIL) == pattern


# -- messages ------------------------------------------------------------------------------------


@pytest.mark.row("E11")
async def test_messages_pass_compressed_in_both_directions() -> None:
    """Text, binary and nothing at all, compressed by the client or not; small ones go plain."""
    messages: list[str | bytes] = ["grüße " * 50, b"\0" * 70_000, "", b"", "small", "grüße " * 50]
    compressor = zlib.compressobj(wbits=-12)
    async with served(echo, compression=Deflate()) as peer:
        await peer.request(headers=offering(f"{NAME}; client_max_window_bits"))
        for message in messages:
            data = message.encode() if isinstance(message, str) else message
            flushed = compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH)
            opcode = TEXT if isinstance(message, str) else BINARY
            await peer.send_frame(opcode, flushed[:-4], rsv=RSV1)
            await peer.receive_frame()
        await peer.send_close(1000)
        await peer.expect_close(1000)
    assert [frame.opcode for frame in peer.frames] == [1, 2, 1, 2, 1, 1, CLOSE]
    assert [frame.rsv for frame in peer.frames] == [RSV1, RSV1, 0, 0, 0, RSV1, 0]
    plain = [each.encode() if isinstance(each, str) else each for each in messages]
    assert inflated(peer.frames) == plain
    assert len(peer.frames[5].payload) < 20, "the context of the first message was used"


async def test_a_message_may_be_kept_out_of_compression() -> None:
    """`compress=False` for secrets, `compress=True` below the threshold; the rest is untouched."""

    async def handler(ws: WebSocket) -> None:
        await ws.send("secret " * 50, compress=False)
        await ws.send("public", compress=True)
        await ws.send("public " * 50)
        await ws.send("small")

    async with served(handler, compression=Deflate()) as peer:
        await peer.request(headers=offering(NAME))
        await peer.expect_close(1000)
    assert [frame.rsv for frame in peer.frames[:4]] == [0, RSV1, RSV1, 0]
    assert inflated(peer.frames) == [b"secret " * 50, b"public", b"public " * 50, b"small"]


async def test_a_streamed_message_is_compressed_piece_by_piece() -> None:
    """RSV1 once, and each piece can be read when it comes."""
    seen: list[bytes] = []

    async def handler(ws: WebSocket) -> None:
        async with ws.message_writer("text") as out:
            for piece in ("first " * 30, "second", "third"):
                await out.send(piece)
                await ws.receive()

    async with served(handler, compression=Deflate()) as peer:
        await peer.request(headers=offering(NAME))
        inflater = zlib.decompressobj(-15)
        for _ in range(3):
            frame = await peer.receive_frame()
            assert frame.rsv == (0 if seen else RSV1)
            seen.append(inflater.decompress(frame.payload))
            await peer.send_message("go on")
        assert inflater.decompress((await peer.receive_frame()).payload + TAIL) == b""
    assert seen == [b"first " * 30, b"second", b"third"]


# -- hostile peers -------------------------------------------------------------------------------


@pytest.mark.row("F2")
async def test_a_bomb_over_tcp_is_told_1009_and_hurts_nobody_else() -> None:
    """200 KB that would be 200 MiB: Close 1009, and the connection beside it goes on."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = compressor.compress(bytes(1 << 20)) + compressor.flush(zlib.Z_FULL_FLUSH)
    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(
            lambda task_status: serve(
                echo, 0, host="127.0.0.1", compression=Deflate(), policy=Policy(),
                task_status=task_status,
            )
        )  # fmt: skip
        attacker = RawPeer(await trio.open_tcp_stream("127.0.0.1", server.port))
        bystander = RawPeer(await trio.open_tcp_stream("127.0.0.1", server.port), allow_rsv=RSV1)
        with trio.fail_after(20):
            async with attacker, bystander:
                await attacker.request(headers=offering(NAME))
                await bystander.request(headers=offering(NAME))
                await attacker.send_frame(BINARY, block * 200, rsv=RSV1)
                close = await attacker.expect_close(1009)
                assert close.close_reason == f"message over {1 << 20} bytes"
                await bystander.send_frame(TEXT, HELLO, rsv=RSV1)
                assert await bystander.receive_message() == "Hello"
        nursery.cancel_scope.cancel()


# -- cancellation --------------------------------------------------------------------------------


@pytest.mark.row("C3")
def test_a_cancelled_send_leaves_the_compressor_alone() -> None:
    """Messages that wait for room in the outbox and are cancelled there were never compressed: all
    that returned arrive whole, and what is sent afterwards still fits the peer's context."""
    counts: set[int] = set()

    async def scenario(target: Target) -> None:
        returned: list[bytes] = []

        async def handler(ws: WebSocket) -> None:
            async def sender(number: int) -> None:
                message = b"message %d says the same as all the others" % number
                await ws.send(message)
                returned.append(message)

            await ws.send(b"the same as all the others, before")
            async with target:
                async with trio.open_nursery() as nursery:
                    for number in range(4):
                        nursery.start_soon(sender, number)
            await ws.send(b"the same as all the others, after")

        near, far = trio.testing.memory_stream_pair()
        stalling = StallingStream(near, after=250, seconds=1)
        chunked = ChunkedStream(stalling, 7)
        target.watch(chunked)
        options: dict[str, Any] = {
            "limits": Limits(max_outbox=1),
            "compression": Deflate(threshold=0),
        }
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: serve_stream(handler, chunked, **options))
            async with RawPeer(far, allow_rsv=RSV1) as peer:
                await peer.request(headers=offering(NAME))
                await peer.expect_close(1000)
                await peer.send_close(1000)
        received = inflated(peer.frames)
        assert all(frame.rsv == RSV1 for frame in peer.frames[:-1])
        assert received[0] == b"the same as all the others, before"
        assert received[-1] == b"the same as all the others, after"
        assert received[1:-1] == returned
        counts.add(len(returned))
        assert len(peer.frames[-2].payload) < 20, "the context was used"

    report = cancel_at_every_step(scenario)
    print(report)
    assert report.partial_writes
    assert len(counts) > 2, "messages were cancelled while they waited"
