"""`message_writer`: pieces become one message, others wait, leaving early tells the peer.

Lives here: writing through the front door. Must never live here: memory (test_streaming_memory),
every step (test_streaming_cancellation).
"""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from trio_ws import ConnectionClosed
from trio_ws.testing import BINARY, CLOSE, PING, PONG, TEXT

from .streaming_world import opposite


@pytest.mark.parametrize(
    ("kind", "pieces"),
    [
        ("binary", [b"abc", bytearray(b"de"), memoryview(b"fg")]),
        ("binary", []),
        ("text", ["häl", "", "lo"]),
        ("text", []),
    ],
)
async def test_pieces_become_fragments_of_one_message(kind: Any, pieces: list[Any]) -> None:
    """The first frame names the kind, the last one ends the message; zero-length ones too."""
    async with opposite() as (ws, peer, _):
        async with ws.message_writer(kind) as out:
            for piece in pieces:
                await out.send(piece)
        await ws.send("next")
        got = await peer.receive_message()
        assert got == (b"".join(pieces) if kind == "binary" else "".join(pieces))
        assert await peer.receive_message() == "next"
        assert peer.frames[0].opcode == (BINARY if kind == "binary" else TEXT)
        assert [frame.fin for frame in peer.frames] == [False] * len(pieces) + [True, True]


async def test_an_unknown_kind_is_refused() -> None:
    """Before anything is sent."""
    async with opposite() as (ws, _, _):
        with pytest.raises(ValueError, match="'json'"):
            async with ws.message_writer("json"):  # type: ignore[arg-type]
                raise AssertionError("entered")


async def test_a_piece_of_the_wrong_kind_is_refused_and_the_message_goes_on() -> None:
    """TypeError for str in binary and bytes in text, ValueError for a lone surrogate."""
    async with opposite() as (ws, peer, _):
        async with ws.message_writer("text") as out:
            await out.send("a")
            with pytest.raises(TypeError):
                await out.send(b"b")
            with pytest.raises(ValueError, match="surrogate"):
                await out.send("\ud800")
            await out.send("c")
        async with ws.message_writer("binary") as out:
            with pytest.raises(TypeError):
                await out.send("b")
        assert await peer.receive_message() == "ac"
        assert await peer.receive_message() == b""


async def test_a_buffer_changed_after_send_does_not_change_the_message() -> None:
    """The piece is copied before `send` returns."""
    async with opposite() as (ws, peer, valve):
        valve.stall()
        piece = bytearray(b"before")
        async with ws.message_writer("binary") as out:
            await out.send(piece)
            piece[:] = b"after!"
        valve.release()
        assert await peer.receive_message() == b"before"


async def test_other_messages_wait_and_control_frames_pass() -> None:
    """Two senders and a second writer wait for the end of the block; a ping, a pong do not. One of
    the senders is cancelled: nothing of it appears."""
    async with opposite() as (ws, peer, _), trio.open_nursery() as nursery:
        impatience = trio.CancelScope()

        async def impatient() -> None:
            with impatience:
                await ws.send("cancelled")

        async def second() -> None:
            async with ws.message_writer("text") as out:
                await out.send("second")

        async with ws.message_writer("text") as out:
            await out.send("one ")
            nursery.start_soon(ws.send, "other")
            nursery.start_soon(second)
            nursery.start_soon(impatient)
            await trio.testing.wait_all_tasks_blocked()
            impatience.cancel()
            nursery.start_soon(ws.ping)
            await peer.send_ping(b"theirs")
            ours = await peer.expect(TEXT)
            assert not ours.fin
            ping = await peer.expect(PING)
            await peer.send_pong(ping.payload)
            await peer.expect(PONG, b"theirs")
            await out.send("message")
        rest = {await peer.receive_message() for _ in range(3)}
        assert rest == {"one message", "other", "second"}
        assert peer.messages[0] == "one message"


async def test_left_by_an_exception_after_a_piece_the_connection_closes_1011() -> None:
    """What was begun can never be completed; the exception comes out bare, waiting senders hear of
    the end."""
    async with opposite() as (ws, peer, _), trio.open_nursery() as nursery:
        ended = trio.Event()

        async def other() -> None:
            with pytest.raises(ConnectionClosed):
                await ws.send("never")
            ended.set()

        with pytest.raises(LookupError):
            async with ws.message_writer("text") as out:
                await out.send("begun")
                nursery.start_soon(other)
                await trio.testing.wait_all_tasks_blocked()
                raise LookupError
        frame = await peer.expect_close(1011)
        assert frame.close_reason
        await peer.send_close(1011)
        await ended.wait()


async def test_left_by_an_exception_before_a_piece_nothing_happened() -> None:
    """The connection is intact, others may send."""
    async with opposite() as (ws, peer, _):
        with pytest.raises(LookupError):
            async with ws.message_writer("text"):
                raise LookupError
        await ws.send("intact")
        assert await peer.receive_message() == "intact"
        assert len(peer.frames) == 1


async def test_a_writer_after_its_block_sends_nothing() -> None:
    """A stray piece would begin another message: ClosedResourceError, also for a task that waited
    for room when the block was left."""
    async with opposite(max_outbox=1) as (ws, peer, valve), trio.open_nursery() as nursery:

        async def straggler() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await out.send(b"late")

        async with ws.message_writer("binary") as out:
            await out.send(b"x")
        with pytest.raises(trio.ClosedResourceError):
            await out.send(b"stray")
        assert await peer.receive_message() == b"x"
        valve.stall()
        with pytest.raises(LookupError):
            async with ws.message_writer("binary") as out:
                nursery.start_soon(ws.ping)  # fills the outbox
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(straggler)
                await trio.testing.wait_all_tasks_blocked()
                raise LookupError
        valve.release()
        await ws.send("after")
        ping = await peer.expect(PING)
        assert await peer.receive_message() == "after"
        await peer.send_pong(ping.payload)


async def test_the_peers_close_within_the_block_is_told() -> None:
    """By the next `send`; the block's end adds nothing."""
    async with opposite() as (ws, peer, _):
        with pytest.raises(ConnectionClosed) as info:
            async with ws.message_writer("binary") as out:
                await out.send(b"x")
                await peer.send_close(1001, "going")
                await ws.wait_closed()
                await out.send(b"y")
        assert info.value.close is ws.closed
        assert info.value.close.code == 1001
        await peer.expect(BINARY)
        assert (await peer.expect(CLOSE)).close_code == 1001


async def test_our_own_close_ends_a_message_in_the_making() -> None:
    """`close` in another task does not wait for the block."""
    async with opposite() as (ws, peer, _), trio.open_nursery() as nursery:
        with pytest.raises(trio.ClosedResourceError):
            async with ws.message_writer("binary") as out:
                await out.send(b"x")
                nursery.start_soon(ws.close)
                await peer.expect_close(1000)
                await peer.send_close(1000)
                await ws.wait_closed()
                await out.send(b"y")
