"""Bad transports: streams that wrap a stream and deliver it in pieces, late, partly, or not.

Lives here: `trio.abc.HalfCloseableStream` wrappers that misbehave in ways real networks do, always
within the contract of trio's streams. Must never live here: anything that knows of WebSockets.

Trio's memory streams never block, so a peer that does not read needs `StallingStream`, or
`trio.testing.lockstep_stream_pair`.
"""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

import trio

__all__ = [
    "BreakingStream",
    "ChunkedStream",
    "DelayedStream",
    "PartialWriter",
    "StallingStream",
    "WrappedStream",
    "half_close",
]


@runtime_checkable
class PartialWriter(Protocol):
    """A transport that can tell whether a write is torn right now."""

    @property
    def mid_write(self) -> bool:
        """Whether some, but not all, bytes of a `send_all` under way have been passed on."""
        raise NotImplementedError


async def half_close(stream: trio.abc.Stream) -> None:
    """End the sending side. TypeError: `stream` has no such thing."""
    if not isinstance(stream, trio.abc.HalfCloseableStream):
        raise TypeError(f"{type(stream).__name__} cannot be half-closed")
    await stream.send_eof()


class WrappedStream(trio.abc.HalfCloseableStream):
    """Passes everything on to `stream`; the base of the streams that do not.

    Owns `stream`: closing closes it. `send_eof` needs a wrapped stream that has one, and raises
    TypeError otherwise. Like trio's own streams it refuses a second sender with BusyResourceError.

    Attributes:
        stream: the wrapped stream.
        sent: bytes passed on so far.
        received: bytes given out so far.
        closed: whether this end was closed.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.sent = 0
        self.received = 0
        self.closed = False
        self._sending = False
        self._mid_write = False

    @property
    def mid_write(self) -> bool:
        """Whether some, but not all, bytes of a `send_all` under way have been passed on."""
        return self._mid_write

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._sending = True
        try:
            await self._pass_on(memoryview(bytes(data)))
        finally:
            self._sending = self._mid_write = False

    async def _pass_on(self, data: memoryview) -> None:
        await self._pass_piece(data, last=True)

    async def _pass_piece(self, piece: memoryview, *, last: bool) -> None:
        await self.stream.send_all(piece)
        self.sent += len(piece)
        self._mid_write = not last

    async def wait_send_all_might_not_block(self) -> None:
        await self.stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data = await self.stream.receive_some(max_bytes)
        self.received += len(data)
        return data

    async def send_eof(self) -> None:
        await half_close(self.stream)

    async def aclose(self) -> None:
        self.closed = True
        await self.stream.aclose()


class ChunkedStream(WrappedStream):
    """Takes and gives at most `size` bytes at a time, with a scheduling point between two pieces.

    A cancelled `send_all` leaves a prefix of its data sent, as on a socket.

    Attributes:
        size: the bytes of one piece; may be changed at any time.
    """

    def __init__(self, stream: trio.abc.Stream, size: int) -> None:
        if size < 1:
            raise ValueError("size must be at least 1 byte")
        super().__init__(stream)
        self.size = size

    async def _pass_on(self, data: memoryview) -> None:
        for start in range(0, len(data) or 1, self.size):
            piece = data[start : start + self.size]
            await self._pass_piece(piece, last=start + self.size >= len(data))

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        wanted = self.size if max_bytes is None else min(self.size, max_bytes)
        return await super().receive_some(wanted)


class StallingStream(WrappedStream):
    """Takes `after` bytes, then blocks in `send_all`: a peer that stops reading.

    The stall ends when `release` is called, or by itself after `seconds` of trio's clock.

    Receiving is not affected. Closing the stream from another task wakes a blocked `send_all` with
    ClosedResourceError, as it does on a socket.

    Args:
        stream: the stream to wrap.
        after: how many bytes pass before the stall; 0 stalls at once.
        seconds: how long a `send_all` is blocked before everything passes; None is for ever.

    Attributes:
        stalled: set while a `send_all` is blocked here; await ``stalled.wait()`` to meet it.
    """

    def __init__(
        self, stream: trio.abc.Stream, *, after: int = 0, seconds: float | None = None
    ) -> None:
        super().__init__(stream)
        self._seconds = math.inf if seconds is None else seconds
        self.stalled = trio.Event()
        self._credit: float = after
        self._changed = trio.Event()

    def release(self, size: int | None = None) -> None:
        """Let `size` more bytes pass; all from now on if None."""
        self._credit = math.inf if size is None else self._credit + size
        self._wake()

    def stall(self) -> None:
        """Block from now on, whatever was released before."""
        self._credit = 0

    async def _pass_on(self, data: memoryview) -> None:
        while True:
            room = int(min(self._credit, len(data)))
            if room or not data:
                self._credit -= room
                await self._pass_piece(data[:room], last=room == len(data))
                data = data[room:]
                if not data:
                    return
            await self._wait_for_release()

    async def wait_send_all_might_not_block(self) -> None:
        while not self._credit:
            await self._wait_for_release()
        await super().wait_send_all_might_not_block()

    async def _wait_for_release(self) -> None:
        self.stalled.set()
        try:
            with trio.move_on_after(self._seconds) as patience:
                await self._changed.wait()
            if patience.cancelled_caught:
                self.release()
        finally:
            self.stalled = trio.Event()
        if self.closed:
            raise trio.ClosedResourceError("this stream was closed")

    async def aclose(self) -> None:
        self.closed = True
        self._wake()
        await super().aclose()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


class DelayedStream(WrappedStream):
    """Every `send_all` takes `send` seconds, every `receive_some` that brings data `receive`.

    Seconds are those of trio's clock: with `trio.testing.MockClock` they pass at once. Cancelled
    while it waits, neither loses a byte.
    """

    def __init__(self, stream: trio.abc.Stream, *, send: float = 0, receive: float = 0) -> None:
        super().__init__(stream)
        self._send_delay = send
        self._receive_delay = receive
        self._pending: bytes | bytearray | None = None

    async def _pass_on(self, data: memoryview) -> None:
        await trio.sleep(self._send_delay)
        await super()._pass_on(data)

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        pending = self._pending
        if pending is None:
            pending = self._pending = await self.stream.receive_some(max_bytes)
        await trio.sleep(self._receive_delay)
        end = len(pending) if max_bytes is None else max_bytes
        data, rest = pending[:end], pending[end:]
        self._pending = rest or None
        self.received += len(data)
        return data


class BreakingStream(WrappedStream):
    """Breaks with BrokenResourceError at a chosen byte, in one or both directions.

    Args:
        stream: the stream to wrap.
        send_at: bytes that pass before sending breaks; the rest of that `send_all` is lost.
        receive_at: bytes that are given out before receiving breaks.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        *,
        send_at: int | None = None,
        receive_at: int | None = None,
    ) -> None:
        super().__init__(stream)
        self._send_at = math.inf if send_at is None else send_at
        self._receive_at = math.inf if receive_at is None else receive_at

    async def _pass_on(self, data: memoryview) -> None:
        room = int(min(self._send_at - self.sent, len(data)))
        if room or not data:
            await self._pass_piece(data[:room], last=room == len(data))
        if room < len(data):
            await trio.lowlevel.checkpoint()
            raise trio.BrokenResourceError("the stream broke while sending")

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        room = self._receive_at - self.received
        if not room:
            await trio.lowlevel.checkpoint()
            raise trio.BrokenResourceError("the stream broke while receiving")
        wanted = max_bytes
        if room != math.inf and (max_bytes is None or max_bytes > room):
            wanted = int(room)
        return await super().receive_some(wanted)
