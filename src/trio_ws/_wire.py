"""The two kinds of transport under a connection: a plain socket's descriptor, and any trio stream.

Lives here: reading, writing, half-closing, closing. Must never live here: frames, decisions.
Faults come out as OSError or as trio's resource errors; the connection translates them, once.

`SocketWire` is used where the stream is exactly a `trio.SocketStream` on Unix: it reads and writes
the descriptor, with no stream layers and no joined copies, and it can write *now*, from a
synchronous step that nobody can cancel. `StreamWire` serves everything else (TLS, memory, Windows);
it can only write from a task. The connection looks at `immediate` to tell them apart.

The descriptor's number is read at each use: a number kept past `close` may by then belong to a
stranger's socket. After `close` it is -1: the kernel refuses that, and trio must never get it.
"""

from __future__ import annotations

import os
import socket
import sys
from typing import TYPE_CHECKING, Literal, TypeAlias

import trio

if sys.platform != "win32":
    import fcntl
    import termios

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

READ_SIZE = 64 * 1024
"""Bytes asked for in one read."""

MAX_READ_SIZE = 512 * 1024
"""The same for the rest of a large frame, and no more than that rest. Each read costs a scheduler
pass; above this size nothing is gained."""


def size_for(missing: int) -> int:
    """Bytes to ask for when a frame lacks `missing` bytes."""
    return READ_SIZE if missing <= READ_SIZE else min(missing, MAX_READ_SIZE)


class SocketWire:
    """A plain socket, by its descriptor."""

    __slots__ = ("_more", "_socket")
    immediate: Literal[True] = True

    def __init__(self, stream: trio.SocketStream) -> None:
        self._socket = stream.socket
        self._more = False  # the last read was full: the kernel probably holds more

    def fileno(self) -> int:
        """The descriptor's number, -1 once it is closed."""
        return self._socket.fileno()

    def _fileno(self) -> int:
        number = self._socket.fileno()
        if number < 0:
            raise trio.ClosedResourceError("this connection's socket is closed")
        return number

    async def read(self, missing: int = 0) -> bytes:
        """Wait for bytes and return them, b"" at the end. Always a checkpoint. Cancelled: nothing
        is lost.

        Args:
            missing: bytes of a frame that are known to come.
        """
        while True:
            await self.readable()
            data = self.read_now(missing)
            if data is not None:
                return data

    def readable(self) -> Awaitable[None]:
        """Wait until `read_now` may find something. Always a checkpoint."""
        if self._more:
            return trio.lowlevel.checkpoint()  # noqa: ASYNC105  the caller awaits it
        return trio.lowlevel.wait_readable(self._fileno())  # noqa: ASYNC105

    def read_now(self, missing: int = 0, *, at_most: int | None = None) -> bytes | None:
        """What the kernel holds, b"" at the end, None if it holds nothing yet.

        Args:
            missing: as `read`.
            at_most: bytes to ask for, instead of what `missing` calls for.
        """
        size = at_most or size_for(missing)
        try:
            data = os.read(self._socket.fileno(), size)
        except BlockingIOError:
            self._more = False
            return None
        self._more = len(data) == size
        return data

    def write_frame(self, frame: bytes) -> int:
        """`write_now` for a single buffer."""
        try:
            return os.write(self._socket.fileno(), frame)
        except BlockingIOError:
            return 0

    def write_now(self, buffers: Sequence[bytes | memoryview]) -> int:
        """Offer the buffers to the kernel; how many bytes it took, perhaps none."""
        try:
            if len(buffers) == 1:
                return os.write(self._socket.fileno(), buffers[0])
            return os.writev(self._socket.fileno(), buffers)
        except BlockingIOError:
            return 0

    async def wait_writable(self) -> None:
        """Wait until `write_now` may take something."""
        await trio.lowlevel.wait_writable(self._fileno())

    def unacknowledged(self) -> int:
        """Bytes that the kernel took and the peer's has not acknowledged; 0 where it cannot be
        asked (Linux can: tcp(7), SIOCOUTQ)."""
        try:
            answer = fcntl.ioctl(self._fileno(), termios.TIOCOUTQ, bytes(4))
        except (OSError, trio.ClosedResourceError):
            return 0
        return int.from_bytes(answer, sys.byteorder)

    async def half_close(self) -> None:
        """Tell the peer that nothing more comes."""
        self._socket.shutdown(socket.SHUT_WR)

    async def aclose(self) -> None:
        self.close_now()

    def close_now(self) -> None:
        """Close the socket; who waits on it wakes with `trio.ClosedResourceError`. Idempotent."""
        self._socket.close()


class StreamWire:
    """Any other `trio.abc.Stream`."""

    __slots__ = ("_stream",)
    immediate: Literal[False] = False

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream

    async def read(self, missing: int = 0) -> bytes:
        """Wait for bytes and return them, b"" at the end. Always a checkpoint."""
        return bytes(await self._stream.receive_some(size_for(missing)))

    async def write(self, data: bytes | memoryview) -> None:
        """Write all of `data`. Cancelled: an unknown part was written, the stream is of no more
        use."""
        await self._stream.send_all(data)

    async def half_close(self) -> None:
        """Tell the peer that nothing more comes, where the stream can do that."""
        if isinstance(self._stream, trio.abc.HalfCloseableStream):
            await self._stream.send_eof()

    async def aclose(self) -> None:
        """Close politely (a TLS close_notify may block); cancelled: closed all the same."""
        await self._stream.aclose()


Wire: TypeAlias = "SocketWire | StreamWire"


def open_wire(stream: trio.abc.Stream) -> Wire:
    """The wire for `stream`, which the connection now owns."""
    if sys.platform != "win32" and type(stream) is trio.SocketStream:
        return SocketWire(stream)
    return StreamWire(stream)
