"""Messages in pieces, compressed or not as their sender says: `message_writer(compress=...)`.

Lives here: what is on the wire. Must never live here: the writer's other promises, zlib's streams.
"""

from __future__ import annotations

import zlib
from functools import partial

import pytest
import trio
import trio.testing

from trio_ws import Deflate, WebSocket, serve_stream
from trio_ws.testing import BINARY, CONTINUATION, TEXT, RawPeer

RSV1 = 4
TAIL = b"\x00\x00\xff\xff"
OFFER = (b"Sec-WebSocket-Extensions", b"permessage-deflate")
PIECES = ["never", "", "again " * 50]


async def write(compress: bool | None, ws: WebSocket) -> None:
    """In pieces as told, and then a message as it comes."""
    async with ws.message_writer("text", compress=compress) as out:
        for piece in PIECES:
            await out.send(piece)
    await ws.send(b"x" * 1000)


@pytest.mark.parametrize(("compress", "rsv"), [(None, RSV1), (True, RSV1), (False, 0)])
async def test_the_sender_decides_for_all_of_a_message(
    compress: bool | None, rsv: int, nursery: trio.Nursery
) -> None:
    """The bit is on the first frame only (RFC 7692 section 6); the next message is not asked."""
    near, far = trio.testing.memory_stream_pair()
    start = partial(serve_stream, partial(write, compress), near, compression=Deflate())
    nursery.start_soon(start)
    async with RawPeer(far, allow_rsv=RSV1) as peer:
        await peer.request(headers=[OFFER])
        frames = [await peer.receive_frame() for _ in range(4)]
        assert [frame.opcode for frame in frames] == [TEXT, *[CONTINUATION] * 3]
        assert [frame.rsv for frame in frames] == [rsv, 0, 0, 0]
        payload = b"".join(frame.payload for frame in frames)
        inflater = zlib.decompressobj(-15)
        if rsv:
            payload = inflater.decompress(payload + TAIL)
        assert payload == "".join(PIECES).encode()
        frame = await peer.receive_frame()
        assert (frame.opcode, frame.rsv) == (BINARY, RSV1)
        assert inflater.decompress(frame.payload + TAIL) == b"x" * 1000
        await peer.expect_close()


async def test_without_compression_it_says_nothing(nursery: trio.Nursery) -> None:
    near, far = trio.testing.memory_stream_pair()
    nursery.start_soon(partial(serve_stream, partial(write, True), near))
    async with RawPeer(far) as peer:
        await peer.request(headers=[OFFER])
        frames = [await peer.receive_frame() for _ in range(4)]
        assert b"".join(frame.payload for frame in frames) == "".join(PIECES).encode()
