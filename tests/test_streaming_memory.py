"""A message of any size takes constant memory, in, out and between.

Lives here: messages of hundreds of read-aheads, counted by tracemalloc. Must never live here: the
memory of whole messages (test_memory_bounds).
"""

from __future__ import annotations

import trio
import trio.testing

from trio_ws import Limits
from trio_ws.testing import BINARY, CONTINUATION, TEXT, encode_frame, open_pair, open_websocket

from .streaming_world import KIB, MIB, no_growth

HUGE = Limits(max_message=2**31, max_fragments=None)


async def test_a_huge_message_takes_constant_memory_on_its_way_in(
    autojump_clock: trio.testing.MockClock,
) -> None:
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


async def test_a_huge_message_takes_constant_memory_on_its_way_out(
    autojump_clock: trio.testing.MockClock,
) -> None:
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
