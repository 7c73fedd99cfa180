"""A conversation of the client, cancelled or interrupted at every step, leaks nothing.

Lives here: sweeps. Must never live here: single ends of the block (test_client_block).
"""

from __future__ import annotations

import pytest
import trio
import trio.testing

from trio_ws import connect_stream
from trio_ws.testing import (
    CLOSE,
    ChunkedStream,
    RawPeer,
    Target,
    cancel_at_every_step,
    interrupt_at_every_step,
)

from .client_world import URL, server_and_stream


async def polite_server(server: RawPeer) -> None:
    """Accepts, echoes one message, answers the Close; whatever breaks, it ends quietly."""
    try:
        await server.accept()
        await server.send_message(await server.receive_message())
        frame = await server.expect_close()
        await server.send_frame(CLOSE, frame.payload)
    except (AssertionError, trio.EndOfChannel, trio.BrokenResourceError):
        pass
    await server.stream.aclose()


async def one_conversation(target: Target) -> None:
    server, stream = server_and_stream()
    slow = ChunkedStream(stream, 20)
    target.watch(slow)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(polite_server, server)
        async with target:
            async with connect_stream(slow, URL) as ws:
                await ws.send("hello")
                assert await ws.receive() == "hello"
        assert slow.closed, "whatever happened, our end is closed when the block is left"
    assert not server.partial or target.fired


@pytest.mark.row("H5")
def test_connect_cancelled_at_every_step_leaks_no_stream_and_no_task() -> None:
    report = cancel_at_every_step(one_conversation, timeout=60)
    print(report)
    assert report.partial_writes
    assert report.delivered > 20


@pytest.mark.row("C6")
@pytest.mark.parametrize(
    "inside", [None, "trio_ws/_client.py", "trio_ws/_attempt.py", "trio_ws/_services.py"]
)
def test_connect_interrupted_at_every_step_leaks_no_stream_and_no_task(inside: str | None) -> None:
    report = interrupt_at_every_step(one_conversation, timeout=60, inside=inside)
    print(report)
    assert report.points > 20
