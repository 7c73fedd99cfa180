"""The bad transports: each misbehaves exactly as it says, and in no other way.

Lives here: the wrappers of `trio_ws.testing` over memory streams. Must never live here: frames.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import trio
import trio.testing

from trio_ws.testing import (
    BreakingStream,
    ChunkedStream,
    DelayedStream,
    PartialWriter,
    StallingStream,
    WrappedStream,
)

Wrap = Callable[[trio.abc.Stream], WrappedStream]

GOOD: dict[str, Wrap] = {
    "wrapped": WrappedStream,
    "chunked": lambda stream: ChunkedStream(stream, 1000),
    "stalling": lambda stream: StallingStream(stream, after=1 << 30),
    "delayed": lambda stream: DelayedStream(stream, send=0.1, receive=0.1),
    "breaking": BreakingStream,
}


@pytest.mark.parametrize("wrap", GOOD.values(), ids=GOOD.keys())
async def test_each_keeps_the_contract_of_trio(
    wrap: Wrap, autojump_clock: trio.testing.MockClock
) -> None:
    """As long as it does not misbehave, it passes trio's own checks for half-closeable streams."""

    async def maker() -> tuple[WrappedStream, WrappedStream]:
        left, right = trio.testing.memory_stream_pair()
        return wrap(left), wrap(right)

    check: Callable[..., Coroutine[Any, Any, None]] = trio.testing.check_half_closeable_stream
    await check(maker, None)


async def test_chunked_takes_and_gives_k_bytes() -> None:
    """Reads are capped, and a cancelled write leaves a prefix."""
    near, far = trio.testing.memory_stream_pair()
    stream = ChunkedStream(near, 4)
    assert isinstance(stream, PartialWriter)
    await far.send_all(b"0123456789")
    assert [bytes(await stream.receive_some()) for _ in range(3)] == [b"0123", b"4567", b"89"]
    assert stream.received == 10
    with trio.CancelScope() as scope:
        scope.cancel()
        await stream.send_all(b"abcdefgh")
    assert scope.cancelled_caught
    assert not stream.mid_write
    assert stream.sent == 0


async def test_stalling_stops_at_its_byte_and_goes_on_when_released(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """Five bytes pass, two more when two are released, the rest after `release()`."""
    near, far = trio.testing.memory_stream_pair()
    stream = StallingStream(near, after=5)
    nursery.start_soon(stream.send_all, b"0123456789")
    await stream.stalled.wait()
    assert stream.mid_write
    assert await far.receive_some() == b"01234"
    stream.release(2)
    assert await far.receive_some() == b"56"
    await trio.testing.wait_all_tasks_blocked()
    with pytest.raises(trio.BusyResourceError):
        await stream.send_all(b"x")
    stream.release()
    assert await far.receive_some() == b"789"
    assert not stream.mid_write
    assert stream.sent == 10


async def test_closing_wakes_a_stalled_writer(nursery: trio.Nursery) -> None:
    """As on a socket: the blocked task gets ClosedResourceError."""
    near, _ = trio.testing.memory_stream_pair()
    stream = StallingStream(near)

    async def writer() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await stream.send_all(b"x")

    nursery.start_soon(writer)
    await stream.stalled.wait()
    await stream.aclose()


async def test_delays_are_virtual_seconds(autojump_clock: trio.testing.MockClock) -> None:
    """A send takes 3 s, a receive 2 s, and a cancelled receive loses nothing."""
    near, far = trio.testing.memory_stream_pair()
    stream = DelayedStream(near, send=3, receive=2)
    start = trio.current_time()
    await stream.send_all(b"x")
    assert trio.current_time() - start == 3
    await far.send_all(b"abc")
    with trio.move_on_after(1):
        await stream.receive_some()
    assert await stream.receive_some(2) == b"ab"
    assert await stream.receive_some() == b"c"
    assert trio.current_time() - start == 3 + 1 + 2 + 2


async def test_breaking_breaks_at_its_byte() -> None:
    """Both directions give exactly the bytes before the break, then BrokenResourceError."""
    near, far = trio.testing.memory_stream_pair()
    stream = BreakingStream(near, send_at=4, receive_at=3)
    await stream.send_all(b"01")
    with pytest.raises(trio.BrokenResourceError):
        await stream.send_all(b"2345")
    assert await far.receive_some() == b"0123"
    with pytest.raises(trio.BrokenResourceError):
        await stream.send_all(b"6")
    await far.send_all(b"abcdef")
    assert await stream.receive_some() == b"abc"
    with pytest.raises(trio.BrokenResourceError):
        await stream.receive_some()


async def test_only_what_can_be_half_closed_is() -> None:
    """`send_eof` of a wrapper around a plain Stream is a TypeError, no AttributeError."""

    near, _ = trio.testing.memory_stream_pair()
    tls = trio.SSLStream(near, ssl.create_default_context(), server_hostname="localhost")
    with pytest.raises(TypeError, match="half-closed"):
        await WrappedStream(tls).send_eof()
