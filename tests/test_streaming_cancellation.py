"""Readers and writers of pieces, cancelled or interrupted at every step.

Lives here: sweeps. Must never live here: leaving by other ways (test_streaming_writing, _reading).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from trio_ws import ConnectionClosed, Limits
from trio_ws.testing import (
    BINARY,
    CLOSE,
    CONTINUATION,
    ChunkedStream,
    RawPeer,
    StallingStream,
    SweepReport,
    Target,
    cancel_at_every_step,
    interrupt_at_every_step,
    open_websocket,
)


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
