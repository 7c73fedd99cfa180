"""Messages piece by piece: constant memory, leaving at any time, and what goes on beside them.

Lives here: `WebSocket.message_writer` and `message_reader`, through the front door. Must never live
here: reassembly itself (see test_inbox).
"""

from __future__ import annotations

import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
import trio
import trio.testing

from trio_ws import ConnectionClosed, Limits, WebSocket
from trio_ws.testing import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    ChunkedStream,
    RawPeer,
    StallingStream,
    SweepReport,
    Target,
    cancel_at_every_step,
    encode_frame,
    interrupt_at_every_step,
    open_pair,
    open_websocket,
)

KIB, MIB = 1024, 1024 * 1024
HUGE = Limits(max_message=2**31, max_fragments=None)


@asynccontextmanager
async def opposite(**limits: Any) -> AsyncIterator[tuple[WebSocket, RawPeer, StallingStream]]:
    """A server's WebSocket, a raw client, and the valve of what the server writes (open). At the
    end the client is gone: nobody waits for its Close."""
    near, far = trio.testing.memory_stream_pair()
    valve = StallingStream(near, after=1 << 60)
    async with open_websocket(valve, limits=Limits(**limits)) as ws:
        yield ws, RawPeer(far), valve
        await trio.aclose_forcefully(far)


@contextmanager
def no_growth(bound: int) -> Any:
    """At most `bound` bytes more are allocated at any moment within the block."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        yield
        peak = tracemalloc.get_traced_memory()[1] - before
        assert peak < bound, f"{peak} bytes"
    finally:
        tracemalloc.stop()


# -- writing -------------------------------------------------------------------------------------


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


# -- reading -------------------------------------------------------------------------------------


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


# -- constant memory -----------------------------------------------------------------------------


async def test_a_huge_message_takes_constant_memory_on_its_way_in() -> None:
    """64 MiB, in frames of 1 MiB, each of which arrives in pieces: under 1 MiB is held."""
    near, far = trio.testing.lockstep_stream_pair()
    frame = memoryview(encode_frame(CONTINUATION, bytes(MIB), fin=False, masked=True))
    total = 0

    async def feed() -> None:
        await far.send_all(encode_frame(BINARY, fin=False, masked=True))
        for _ in range(64):
            for at in range(0, len(frame), 50_000):  # the stream keeps what it was given at once
                await far.send_all(frame[at : at + 50_000])
        await far.send_all(encode_frame(CONTINUATION, masked=True))
        await far.send_all(encode_frame(TEXT, b"next", masked=True))

    async with open_websocket(near, limits=HUGE) as ws, trio.open_nursery() as nursery:
        nursery.start_soon(feed)
        with no_growth(MIB):
            async with ws.message_reader() as chunks:
                async for piece in chunks:
                    total += len(piece)
        assert await ws.receive() == "next"
        nursery.cancel_scope.cancel()
    assert total == 64 * MIB


async def test_a_huge_message_takes_constant_memory_on_its_way_out() -> None:
    """64 MiB to a peer that reads as it likes: under `max_outbox` and a few pieces are held."""
    near, far = trio.testing.lockstep_stream_pair()
    total = 0

    async def drain() -> None:
        nonlocal total
        while data := await far.receive_some(50_000):
            total += len(data)

    async with open_websocket(near) as ws, trio.open_nursery() as nursery:
        nursery.start_soon(drain)
        piece = bytes(16 * KIB)
        with no_growth(MIB):
            async with ws.message_writer("binary") as out:
                for _ in range(64 * 64):
                    await out.send(piece)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert total >= 64 * MIB


async def test_a_huge_message_between_two_of_ours() -> None:
    """Writer to reader, the same bytes, one after another in constant memory."""
    streams = trio.testing.lockstep_stream_pair()
    async with open_pair(limits=HUGE, streams=streams) as (client, server):
        async with trio.open_nursery() as nursery:

            async def write() -> None:
                async with client.message_writer("text") as out:
                    for number in range(1000):
                        await out.send(f"{number}é" * 100)

            nursery.start_soon(write)
            async with server.message_reader() as chunks:
                got = "".join([str(piece) async for piece in chunks])
    assert got == "".join(f"{number}é" * 100 for number in range(1000))


# -- cancellation --------------------------------------------------------------------------------


async def answer(peer: RawPeer) -> None:
    """Read all there is, answer the Close."""
    try:
        while True:
            frame = await peer.receive_frame()
            if frame.opcode == CLOSE:
                await peer.send_close(1000)
    except (trio.EndOfChannel, trio.BrokenResourceError, trio.ClosedResourceError):
        pass


Sweep = Callable[..., SweepReport]
SWEEPS: dict[str, tuple[Sweep, dict[str, Any]]] = {
    "cancelled": (cancel_at_every_step, {"repeats": 2}),
    "interrupted": (interrupt_at_every_step, {}),
    "interrupted-lines": (interrupt_at_every_step, {"inside": "trio_ws/_"}),
}


def sweep(how: str, scenario: Callable[[Target], Awaitable[None]]) -> SweepReport:
    function, options = SWEEPS[how]
    report = function(scenario, **options)
    print(report)
    assert report.points
    return report


@pytest.mark.row("C1", "C6")
@pytest.mark.parametrize("how", SWEEPS)
def test_a_cancelled_writer_closes_1011_or_leaves_no_trace(how: str) -> None:
    """At every step: complete, or begun and closed with 1011, or not begun and intact."""
    outcomes: set[str] = set()

    async def scenario(target: Target) -> None:
        near, far = trio.testing.memory_stream_pair()
        stream = ChunkedStream(StallingStream(near, after=10, seconds=1), 7)
        target.watch(stream)
        peer = RawPeer(far)
        async with trio.open_nursery() as nursery:
            async with open_websocket(stream, limits=Limits(max_outbox=48)) as ws:
                nursery.start_soon(answer, peer)
                complete = False
                async with target:
                    async with ws.message_writer("binary") as out:
                        for _ in range(5):
                            await out.send(b"x" * 20)
                    complete = True
                    await trio.sleep(0)
                if complete:
                    await ws.send("after")
                else:
                    try:
                        await ws.send("after")
                    except ConnectionClosed:
                        assert ws.closed is not None
                await ws.close()
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        close = peer.frames[-1]
        assert close.opcode == CLOSE
        assert not peer.partial
        if complete:
            assert peer.messages == [b"x" * 100, "after"]
            outcomes.add("complete")
        elif close.close_code == 1011:
            assert peer.messages == []
            assert peer.frames[0].opcode == BINARY
            outcomes.add("1011")
        else:
            assert peer.messages in (["after"], [b"x" * 100, "after"])
            outcomes.add("intact")

    report = sweep(how, scenario)
    assert "1011" in outcomes
    assert "intact" in outcomes
    assert how != "cancelled" or report.partial_writes


@pytest.mark.row("C4", "C6")
@pytest.mark.parametrize("how", SWEEPS)
def test_a_cancelled_reader_skips_the_rest_and_nothing_else(how: str) -> None:
    """At every step, entering included: the next message is the next one, whole."""
    outcomes: set[int] = set()

    async def scenario(target: Target) -> None:
        near, far = trio.testing.memory_stream_pair()
        peer = RawPeer(far)
        async with trio.open_nursery() as nursery:
            async with open_websocket(ChunkedStream(near, 7)) as ws:
                await peer.send_message("zero")
                nursery.start_soon(answer, peer)
                got: list[str | bytes] = []
                entered = False

                async def write() -> None:
                    await peer.send_frame(BINARY, b"one" * 5, fin=False)
                    await trio.testing.wait_all_tasks_blocked()
                    await peer.send_frame(CONTINUATION, b"two" * 5)
                    await peer.send_message("next")

                nursery.start_soon(write)
                async with target:
                    got.append(await ws.receive())
                    async with ws.message_reader() as chunks:
                        entered = True
                        async for piece in chunks:
                            got.append(piece)  # noqa: PERF401  one by one, it is interrupted
                if not got:
                    assert await ws.receive() == "zero"
                    got.append("zero")
                following = await ws.receive()
                outcomes.add(len(got))
                if following == "next":
                    parts = b"".join(part for part in got if isinstance(part, bytes))
                    assert (b"one" * 5 + b"two" * 5).startswith(parts)
                else:  # cancelled before it was streamed: it comes whole
                    assert not entered
                    assert following == b"one" * 5 + b"two" * 5
                    assert await ws.receive() == "next"
                await ws.close()

    sweep(how, scenario)
    assert len(outcomes) > 2, "cancelled before, within and behind the message"
