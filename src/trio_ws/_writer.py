"""The outbound half of a connection: who writes the outbox to the wire, and who waits for room.

Lives here: offering bytes to the kernel, the flusher, the senders that wait. Must never live here:
frames' contents, the close state machine, reading.

The theory. Frames enter the outbox whole, in a synchronous step that cannot be cancelled; from
then on they are not the sender's any more. `write_out` offers them to the kernel at once. What the
kernel does not take is the flusher's, a service task: while it is at work it is the only writer, so
bytes never interleave, and no user's cancel scope surrounds it. It looks at `stopped` after every
await, because the connection may have ended meanwhile.

Rooms do not wait: what they have for a full outbox stands in a `Feed`, in line with the senders.
Whenever there is room, the feed fills it up to the turn of the first sender, and then he is woken.
"""

from __future__ import annotations

import sys
from collections import deque
from typing import TYPE_CHECKING, Protocol

import trio

from ._outbox import Outbox

if TYPE_CHECKING:
    from ._services import Services
    from ._wire import SocketWire, StreamWire, Wire


class Mark(Protocol):
    """Something that wants to know when its last byte has left."""

    sent_at: float | None


LAST = sys.maxsize
"""The turn of who comes now: behind everything."""


class Feed(Protocol):
    """Messages that wait for room in the outbox, numbered in one line with the senders."""

    def enter(self) -> int:
        """A sender's turn: behind what waits now."""
        ...

    def leave(self, turn: int) -> None:
        """That sender waits no more."""

    def ahead(self, turn: int) -> bool:
        """Whether a message waits whose place is before `turn`."""
        ...

    def pump(self) -> None:
        """Move messages into the outbox: while it `takes` any, up to the first sender's turn."""


class Full(Protocol):
    """Whether a frame must wait; `turn` is what the feed gave to who waits already."""

    def __call__(self, turn: int = LAST) -> bool: ...


class Owner(Protocol):
    def write_failed(self, exc: Exception) -> None:
        """The wire takes no more; the writer has stopped."""


class Writer:
    """Writes one connection's outbox.

    Attributes:
        outbox: what waits.
        blocked: the flusher is at work, the wire is full.
        pressed: the attendant saw it blocked at its last tick.
        moved: a full wire has taken bytes since then.
        composing: a message is being written in pieces.
        fed: the feed holds messages; kept by it.
        feed: what rooms have for this connection; None if it never joined one.
        stopped: nothing will ever be written again.
        vectored: the wire takes many buffers at once.
    """

    __slots__ = (
        "_drained",
        "_high_water",
        "_idle",
        "_marks",
        "_owner",
        "_room",
        "_scope",
        "_services",
        "_wire",
        "blocked",
        "composing",
        "fed",
        "feed",
        "moved",
        "outbox",
        "pressed",
        "stopped",
        "vectored",
    )

    def __init__(self, wire: Wire, services: Services, high_water: int, owner: Owner) -> None:
        self._wire = wire
        self._services = services
        self._high_water = high_water
        self._owner = owner
        self._room: trio.lowlevel.ParkingLot | None = None
        self._drained: trio.lowlevel.ParkingLot | None = None
        self._marks: deque[tuple[int, Mark]] | None = None
        self._scope: trio.CancelScope | None = None
        self._idle: trio.lowlevel.Task | None = None
        self.outbox = Outbox()
        self.blocked = False
        self.pressed = False
        self.moved = False
        self.composing = False
        self.fed = False
        self.feed: Feed | None = None
        self.stopped = False
        self.vectored: bool = wire.immediate

    # -- writing ---------------------------------------------------------------------------------

    def write_out(self) -> None:
        """Offer what waits to the kernel; leave the rest to the flusher. Never raises."""
        if self.fed and self.feed is not None:
            self.feed.pump()
        if self.blocked or not self.outbox.size:
            return
        wire = self._wire
        if wire.immediate is True:
            self._write_now(wire)
            if self.outbox.size:
                self._block(wire)
        elif self._scope is None:
            self._scope = self._services.start(self._flush_stream, wire)
        elif self._idle is not None:
            trio.lowlevel.reschedule(self._idle)
            self._idle = None

    def write_through(self, frame: bytes) -> None:
        """Queue one whole frame and write out: the same as both, without the queue where nothing
        waits. The caller has looked at `Outbox.sealed`."""
        outbox, wire = self.outbox, self._wire
        if outbox.size or self.fed or wire.immediate is False:
            outbox.append(frame)
            self.write_out()
            return
        try:
            count = wire.write_frame(frame)
        except (OSError, trio.ClosedResourceError) as exc:
            self._fail(exc)
            return
        if count == len(frame):
            outbox.passed(count)
        else:
            outbox.append(frame)
            outbox.advance(count)
            self._block(wire)

    def _block(self, wire: SocketWire) -> None:
        self.blocked = True
        self._scope = self._services.start(self._flush_socket, wire)

    def _write_now(self, wire: SocketWire) -> None:
        outbox = self.outbox
        try:
            outbox.advance(wire.write_now(outbox.buffers()))
        except (OSError, trio.ClosedResourceError) as exc:
            self._fail(exc)
        else:
            if self._marks or self._room or self._drained or self.fed:
                self._progress()

    async def _flush_socket(self, wire: SocketWire) -> None:
        try:
            while self.outbox.size:
                await wire.wait_writable()
                if self.stopped:
                    return
                self.outbox.settle_pong()
                written = self.outbox.written
                self._write_now(wire)
                self.moved |= self.outbox.written != written
        except trio.ClosedResourceError:
            pass  # closed under us, by its owner
        finally:
            self.blocked = False
            self._scope = None

    async def _flush_stream(self, wire: StreamWire) -> None:
        while not self.stopped:
            self.outbox.settle_pong()
            if not self.outbox.size:
                await self._linger()
                continue
            data = self.outbox.take()
            self.blocked = True
            try:
                await wire.write(data)
            except Exception as exc:  # noqa: BLE001  a stream's own kind; the peer is lost
                if not self.stopped:
                    self._fail(exc)
                return
            finally:
                self.blocked = False
            if not self.stopped:
                self.outbox.advance(len(data))
                # A stream does not tell whether it was full; one that kept us over a tick was.
                self.moved |= self.pressed
                self._progress()

    async def _linger(self) -> None:
        """Wait for the next frame: a task a message would cost more than the message."""

        def abort(_: object) -> trio.lowlevel.Abort:
            self._idle = None
            return trio.lowlevel.Abort.SUCCEEDED

        self._idle = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(abort)

    def _fail(self, exc: Exception) -> None:
        self.stop()
        self._owner.write_failed(exc)

    def stop(self) -> None:
        """Write nothing more, drop what waits, wake everybody who waits here. Idempotent."""
        self.stopped = True
        self.outbox.abandon()
        if self._scope is not None:
            self._scope.cancel()
        self.wake_senders()
        if self._drained:
            self._drained.unpark_all()

    # -- waiting ---------------------------------------------------------------------------------

    def _progress(self) -> None:
        outbox = self.outbox
        while self._marks and self._marks[0][0] <= outbox.written:
            self._marks.popleft()[1].sent_at = trio.current_time()
        if self.fed and self.feed is not None:
            self.feed.pump()
        self._pass_room_on()
        if self._drained and not outbox.size:
            self._drained.unpark_all()

    def mark(self, mark: Mark) -> None:
        """Set ``mark.sent_at`` when all that is queued now has left."""
        if self._marks is None:
            self._marks = deque()
        self._marks.append((self.outbox.queued, mark))

    def takes(self) -> bool:
        """Whether the outbox takes a frame that no message in pieces would be torn by."""
        outbox = self.outbox
        return outbox.size < self._high_water and not self.composing and not outbox.sealed

    def full(self, turn: int = LAST) -> bool:
        """Whether a message must wait: above the high-water mark, or behind a message that is
        being written in pieces, or behind what rooms have for this connection; never once
        sealed."""
        if self.outbox.sealed:
            return False
        behind = self.fed and self.feed is not None and self.feed.ahead(turn)
        return behind or self.composing or self.outbox.size >= self._high_water

    def full_for_pieces(self, turn: int = LAST) -> bool:  # noqa: ARG002  as `full`
        """The same for a ping, or a piece of that message: they wait for bytes only."""
        return self.outbox.size >= self._high_water and not self.outbox.sealed

    async def room(self, full: Full) -> None:
        """Wait until ``full`` is false. Cancelled: nothing has happened."""
        self.write_out()  # what was left for the next scheduler pass must not wait for itself
        if self._room is None:
            self._room = trio.lowlevel.ParkingLot()
        feed = self.feed
        turn = feed.enter() if feed is not None else 0
        try:
            while full(turn):
                await self._room.park()
        finally:
            if feed is not None:
                feed.leave(turn)
            if self.fed:  # behind the frame that this sender is about to queue, if it does
                self._services.spread(self)
            self._pass_room_on()

    def _pass_room_on(self) -> None:
        """Wake who may go on: one sender, who wakes the next. Everybody while a message is being
        written in pieces or rooms' wait: who has parked first may not be the one who may go on,
        because who was woken in vain parks again, behind the others."""
        if self._room and not self.full_for_pieces():
            self._room.unpark(count=len(self._room) if self.composing or self.fed else 1)

    def end_composing(self) -> None:
        """That message is complete, or never will be."""
        self.composing = False
        self.write_out()
        self.wake_senders()

    def wake_senders(self) -> None:
        """Every sender must look again."""
        if self._room:
            self._room.unpark_all()

    async def drained(self) -> None:
        """Wait until everything queued has left, or nothing ever will."""
        if self._drained is None:
            self._drained = trio.lowlevel.ParkingLot()
        while self.outbox.size:
            await self._drained.park()
