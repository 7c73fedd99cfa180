"""What a peer can make us keep: bytes, counted by tracemalloc.

Lives here: bounds that only an allocation count can show. Must never live here: what the peer is
told (see test_hostile_peers).
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio
import trio.testing

from trio_ws import ConnectionClosed, Limits
from trio_ws.testing import (
    BINARY,
    CONTINUATION,
    TEXT,
    StallingStream,
    encode_frame,
    open_websocket,
)

KIB, MIB = 1024, 1024 * 1024


class Meter:
    """The most bytes that were allocated at once within the block."""

    peak = 0


@contextmanager
def metered() -> Iterator[Meter]:
    meter = Meter()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    try:
        yield meter
    finally:
        meter.peak = tracemalloc.get_traced_memory()[1] - before
        tracemalloc.stop()


class Tap(trio.abc.Stream):
    """A peer that never keeps what it sends: each read takes the next piece of an iterator."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self.pieces = pieces
        self.sent = bytearray()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        return next(self.pieces, b"")

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        self.sent += data

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


@pytest.mark.row("E1")
async def test_a_declared_length_costs_nothing() -> None:
    """A header that claims 2^62 bytes is refused before a byte is kept or reserved for it."""
    wire = encode_frame(BINARY, b"x" * KIB, masked=True, declared_length=1 << 62)
    with metered() as meter:
        async with open_websocket(Tap(iter([wire]))) as ws:
            with pytest.raises(ConnectionClosed) as info:
                await ws.receive()
            assert info.value.close.code == 1009
    assert meter.peak < 256 * KIB


@pytest.mark.row("E2")
@pytest.mark.parametrize("size", [0, 1])
async def test_fragments_without_end_stay_flat(size: int) -> None:
    """With no bound on their number, 20,000 fragments of no byte or one cost bytes, not objects:
    one object each would be 1 MiB."""
    count = 20_000
    first = encode_frame(BINARY, b"x" * size, fin=False, masked=True)
    batch = encode_frame(CONTINUATION, b"x" * size, fin=False, masked=True) * 1000
    pieces = iter([first, *[batch] * (count // 1000)])
    with metered() as meter:
        async with open_websocket(Tap(pieces), limits=Limits(max_fragments=None)) as ws:
            with pytest.raises(ConnectionClosed):
                await ws.receive()
    assert meter.peak < 2 * count * size + 256 * KIB


@pytest.mark.row("E3")
@pytest.mark.parametrize("opcode", [BINARY, TEXT])
async def test_a_dribbled_message_costs_twice_its_size(opcode: int) -> None:
    """12 KiB in one frame, one byte a read: at most twice the payload, and what a connection costs;
    one object a byte would be over 512 KiB."""
    size = 12 * KIB
    wire = encode_frame(opcode, b"x" * size, masked=True)
    pieces = (wire[index : index + 1] for index in range(len(wire)))
    with metered() as meter:
        async with open_websocket(Tap(pieces)) as ws:
            message = await ws.receive()
            assert len(message) == size
    assert meter.peak < 2 * size + 64 * KIB


@pytest.mark.row("E4")
async def test_pings_to_a_peer_that_does_not_read_stay_flat(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """20,000 pings whose pongs cannot be written: only the newest unsent pong is kept."""
    near, far = trio.testing.memory_stream_pair()
    stalling = StallingStream(near)
    batch = encode_frame(0x9, b"x" * 100, masked=True) * 500
    async with open_websocket(stalling, limits=Limits(close_timeout=1)) as ws:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ws.wait_closed)
            with metered() as meter:
                for _ in range(40):
                    await far.send_all(batch)
                    await trio.testing.wait_all_tasks_blocked()
            await far.aclose()
    assert meter.peak < 512 * KIB


@pytest.mark.row("E5")
async def test_a_waiter_reads_ahead_no_further_than_its_bound(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """While nobody receives, a task in `wait_closed` reads `read_ahead` bytes and one read more."""
    batch = encode_frame(BINARY, b"x" * KIB, masked=True) * 16
    taken = 0

    def flood() -> Iterator[bytes]:
        nonlocal taken
        while True:
            taken += len(batch)
            yield batch

    limits = Limits(read_ahead=64 * KIB, close_timeout=1)
    async with open_websocket(Tap(flood()), limits=limits) as ws:
        with trio.move_on_after(5):
            await ws.wait_closed()
        assert taken <= 64 * KIB + 3 * len(batch)
        for _ in range(64):
            assert await ws.receive() == b"x" * KIB
        await trio.aclose_forcefully(ws)


@pytest.mark.parametrize("character", ["x", "\u4e2d", "\U0001f600"])
async def test_what_the_largest_message_costs(
    character: str, autojump_clock: trio.testing.MockClock
) -> None:
    """1 MiB of text in fragments costs its bytes, its characters at up to four bytes each, and what
    CPython's decoder holds beside them meanwhile (once the bytes)."""
    text = character * (MIB // len(character.encode()))
    data = text.encode()
    step = 16 * KIB
    frames = [encode_frame(TEXT, data[:step], fin=False, masked=True)]
    frames += [
        encode_frame(CONTINUATION, data[at : at + step], fin=at + step >= len(data), masked=True)
        for at in range(step, len(data), step)
    ]
    widest = {"x": 1, "\u4e2d": 2, "\U0001f600": 4}[character]
    with metered() as meter:
        async with open_websocket(Tap(iter(frames))) as ws:
            assert await ws.receive() == text
    assert meter.peak < (1 + widest + 1) * MIB + 256 * KIB
