"""`message_reader`: pieces as they come, leaving at any time, limits for the whole message.

Lives here: reading through the front door. Must never live here: reassembly itself (see
test_inbox), memory (test_streaming_memory), every step (test_streaming_cancellation).
"""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from trio_ws import ConnectionClosed
from trio_ws.testing import (
    BINARY,
    CONTINUATION,
    PING,
    TEXT,
    ChunkedStream,
    encode_frame,
    open_websocket,
)

from .streaming_world import KIB, MIB, no_growth, opposite


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
async def test_text_is_split_between_code_points(size: int) -> None:
    """However the bytes are cut, on the wire and in frames: pieces are str, never empty, and their
    sum is the message."""
    text = "aé€😀" * 50
    data = text.encode()
    frames = b"".join(
        encode_frame(
            CONTINUATION if at else TEXT,
            data[at : at + 11],
            fin=at + 11 >= len(data),
            masked=True,
        )
        for at in range(0, len(data), 11)
    )
    near, far = trio.testing.memory_stream_pair()
    async with open_websocket(ChunkedStream(near, size)) as ws:
        await far.send_all(frames)
        async with ws.message_reader() as chunks:
            assert chunks.kind == "text"
            pieces = [piece async for piece in chunks]
        assert all(isinstance(piece, str) and piece for piece in pieces)
        assert "".join(map(str, pieces)) == text
        await trio.aclose_forcefully(far)
        assert size > 10 or len(pieces) > 1


async def test_pieces_arrive_before_the_message_is_whole() -> None:
    """The first piece of a frame that has only begun."""
    async with opposite() as (ws, peer, _):
        frame = encode_frame(BINARY, bytes(range(100)), masked=True)
        await peer.send_raw(frame[:50])
        async with ws.message_reader() as chunks:
            assert chunks.kind == "binary"
            got = await anext(chunks)
            assert isinstance(got, bytes)
            assert 0 < len(got) < 50
            await peer.send_raw(frame[50:])
            async for piece in chunks:
                assert isinstance(piece, bytes)
                got += piece
        assert got == bytes(range(100))


@pytest.mark.row("E11")
async def test_a_message_of_no_bytes_has_no_pieces() -> None:
    """It is begun and ended all the same; also in empty fragments."""
    async with opposite() as (ws, peer, _):
        await peer.send_message("")
        await peer.send_frame(BINARY, fin=False)
        await peer.send_frame(CONTINUATION, fin=False)
        await peer.send_frame(CONTINUATION)
        await peer.send_message("next")
        for kind in ("text", "binary"):
            async with ws.message_reader() as chunks:
                assert chunks.kind == kind
                assert [piece async for piece in chunks] == []
        assert await ws.receive() == "next"


@pytest.mark.parametrize("taken", [0, 1, 2])
async def test_leaving_early_skips_the_rest(taken: int) -> None:
    """What had come and what comes later; the next `receive` has the next message."""
    async with opposite() as (ws, peer, _):
        await peer.send_frame(TEXT, b"one", fin=False)
        async with ws.message_reader() as chunks:
            for number in range(taken):
                if number:
                    await peer.send_frame(CONTINUATION, b"two", fin=False)
                await anext(chunks)
        await peer.send_frame(CONTINUATION, b"three", fin=False)
        await peer.send_frame(CONTINUATION, b"four")
        await peer.send_message("next")
        await peer.send_message(b"last")
        assert await ws.receive() == "next"
        async with ws.message_reader():
            pass
        await peer.send_eof()
        with pytest.raises(ConnectionClosed):
            await ws.receive()


async def test_the_bytes_that_are_skipped_are_not_kept() -> None:
    """A peer that goes on with a message nobody wants costs nothing."""
    async with opposite(max_message=2**31, max_fragments=None) as (ws, peer, _):
        await peer.send_frame(BINARY, b"x", fin=False)
        async with ws.message_reader():
            pass
        frame = encode_frame(CONTINUATION, bytes(64 * KIB), fin=False, masked=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ws.wait_closed)
            with no_growth(MIB):
                for _ in range(100):
                    await peer.send_raw(frame)
                    await trio.testing.wait_all_tasks_blocked()
            await peer.send_close()


async def test_one_task_receives_at_a_time() -> None:
    """BusyResourceError for `receive`, a second block, and a second task at the same pieces."""
    async with opposite() as (ws, peer, _):
        await peer.send_frame(TEXT, b"one", fin=False)
        async with ws.message_reader() as chunks:
            with pytest.raises(trio.BusyResourceError):
                await ws.receive()
            with pytest.raises(trio.BusyResourceError):
                async with ws.message_reader():
                    raise AssertionError("entered")
            await anext(chunks)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(anext, chunks)
                await trio.testing.wait_all_tasks_blocked()
                with pytest.raises(trio.BusyResourceError):
                    await anext(chunks)
                await peer.send_frame(CONTINUATION, b"two")
        await peer.send_message("next")
        assert await ws.receive() == "next"
        with pytest.raises(trio.ClosedResourceError):
            await anext(chunks)


async def test_the_end_of_the_connection_within_a_message_is_told() -> None:
    """What had come is handed out, then ConnectionClosed, never a quiet end."""
    for end in ("close", "eof"):
        async with opposite() as (ws, peer, _):
            await peer.send_frame(TEXT, b"part", fin=False)
            async with ws.message_reader() as chunks:
                if end == "close":
                    await peer.send_close(1000)
                else:
                    await peer.send_eof()
                assert await anext(chunks) == "part"
                with pytest.raises(ConnectionClosed) as info:
                    await anext(chunks)
            assert info.value.close.code == (1000 if end == "close" else 1006)


async def test_our_close_within_a_message_that_had_come_is_told() -> None:
    """The pieces that `close` dropped are not passed over in silence."""
    async with opposite() as (ws, peer, _), trio.open_nursery() as nursery:
        await peer.send_message(b"whole")
        async with ws.message_reader() as chunks:
            nursery.start_soon(ws.close)
            await peer.expect_close()
            await peer.send_close()
            with pytest.raises(trio.ClosedResourceError):
                await anext(chunks)


@pytest.mark.row("E1", "E2")
@pytest.mark.parametrize(
    ("limits", "frames"),
    [({"max_message": 100}, 11), ({"max_fragments": 7}, 8)],
    ids=["bytes", "fragments"],
)
async def test_the_limits_hold_for_the_whole_message(limits: dict[str, int], frames: int) -> None:
    """Not for a piece: 1009, though all that came was taken at once."""
    async with opposite(**limits) as (ws, peer, _):
        await peer.send_frame(BINARY, bytes(10), fin=False)
        async with ws.message_reader() as chunks:
            for _ in range(frames - 2):
                await anext(chunks)
                await peer.send_frame(CONTINUATION, bytes(10), fin=False)
            await anext(chunks)
            await peer.send_frame(CONTINUATION, bytes(10), fin=False)
            with pytest.raises(ConnectionClosed) as info:
                await anext(chunks)
            assert info.value.close.code == 1009


@pytest.mark.row("C11")
async def test_who_stops_reading_hands_over() -> None:
    """A ping waits beside a reader whose turn at the socket ends, by a piece or by cancellation
    inside the block: it drives on, with nobody else to do it."""
    for how in ("piece", "cancelled"):
        async with opposite() as (ws, peer, _), trio.open_nursery() as nursery:
            await peer.send_frame(BINARY, b"one", fin=False)
            async with ws.message_reader() as chunks:
                await anext(chunks)
                scope = trio.CancelScope()

                async def read(scope: trio.CancelScope, chunks: Any) -> None:
                    with scope:
                        await anext(chunks)

                nursery.start_soon(read, scope, chunks)
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(ws.ping)
                ping = await peer.expect(PING)
                if how == "piece":
                    await peer.send_frame(CONTINUATION, b"two", fin=False)
                else:
                    scope.cancel()
                await trio.testing.wait_all_tasks_blocked()
                await peer.send_pong(ping.payload)
                await trio.testing.wait_all_tasks_blocked()
                assert not nursery.child_tasks
                await peer.send_frame(CONTINUATION)
