"""What is to be written: whole frames in order, counted in bytes.

Lives here: the queue of one connection and its arithmetic. Must never live here: sockets, awaits,
or frames that are not whole. A frame enters complete and leaves byte by byte; nothing enters after
the Close frame.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_BUFFERS = 1024
"""IOV_MAX on Linux, macOS and the BSDs: more buffers in one writev is EINVAL."""

MAX_JOIN = 64 * 1024
"""Small frames are joined up to this size where the transport takes one buffer a call."""


class Outbox:
    """The frames that the transport has not taken yet.

    Attributes:
        size: bytes waiting.
        queued: bytes ever queued; a frame has left when `written` has reached what `queued` was
            just behind it.
        written: bytes the transport has taken.
        sealed: the Close frame is in, nothing follows it.
    """

    __slots__ = ("_frames", "_offset", "_pong", "queued", "sealed", "size", "written")

    def __init__(self) -> None:
        # A list, because an empty deque takes 700 bytes, and most connections are idle.
        self._frames: list[bytes] = []
        self._offset = 0
        self._pong: bytes | None = None
        self.size = 0
        self.queued = 0
        self.written = 0
        self.sealed = False

    def append(self, frame: bytes) -> None:
        """Queue one whole frame. The caller has looked at `sealed`."""
        assert not self.sealed
        self._frames.append(frame)
        self.size += len(frame)
        self.queued += len(frame)

    def append_unjoined(self, head: bytes, payload: bytes) -> None:
        """The same for a frame in two parts. None stands alone: both enter here, and no cancel
        scope surrounds who writes them."""
        self.append(head)
        self.append(payload)

    def passed(self, count: int) -> None:
        """A frame of `count` bytes went by whole, because nothing waited."""
        self.queued += count
        self.written += count

    def append_pong(self, frame: bytes, *, blocked: bool) -> None:
        """Queue a pong; while the transport is `blocked` only the newest one is kept, so that a
        flood of pings cannot fill the memory (RFC 6455 section 5.5.3 allows it)."""
        if self.sealed:
            return
        if blocked:
            self._pong = frame
        else:
            self.append(frame)

    def seal(self, frame: bytes) -> None:
        """Queue the Close frame, the last one."""
        self.settle_pong()
        self.append(frame)
        self.sealed = True

    def settle_pong(self) -> None:
        """Give the kept pong its place, now that the transport takes bytes again; none is left once
        the outbox is sealed."""
        if self._pong is not None and not self.sealed:
            self.append(self._pong)
        self._pong = None

    def buffers(self) -> Sequence[bytes | memoryview]:
        """What waits, as buffers for one vectored write, to be made before anything else."""
        frames = self._frames
        if not self._offset and len(frames) <= MAX_BUFFERS:
            return frames
        buffers: list[bytes | memoryview] = (
            list(frames) if len(frames) <= MAX_BUFFERS else list(islice(frames, MAX_BUFFERS))
        )
        if self._offset:
            buffers[0] = memoryview(frames[0])[self._offset :]
        return buffers

    def take(self) -> bytes | memoryview:
        """What waits, as one buffer of at most `MAX_JOIN` bytes: a larger one would hide from the
        clocks that the peer does read. It stays queued until `advance` is told that it has gone."""
        if self._offset or len(self._frames) == 1 or len(self._frames[0]) >= MAX_JOIN:
            return memoryview(self._frames[0])[self._offset : self._offset + MAX_JOIN]
        total, count = 0, 0
        for frame in self._frames:
            if total + len(frame) > MAX_JOIN:
                break
            total += len(frame)
            count += 1
        return b"".join(islice(self._frames, count))

    def advance(self, count: int) -> None:
        """The transport has taken `count` bytes."""
        self.size -= count
        self.written += count
        frames = self._frames
        if not self.size:
            frames.clear()
            self._offset = 0
            return
        count += self._offset
        gone = 0
        for frame in frames:
            if count < len(frame):
                break
            count -= len(frame)
            gone += 1
        del frames[:gone]
        self._offset = count

    def abandon(self) -> None:
        """The transport is gone: drop everything, let nothing in."""
        self._frames.clear()
        self._offset = self.size = 0
        self._pong = None
        self.sealed = True
