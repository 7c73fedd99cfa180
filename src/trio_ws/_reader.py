"""The inbound half of a connection: who reads the socket, and who waits for what it brings.

Lives here: driving, parking, handing over, reading ahead within its bound. Must never live here:
what a Close or an error means (`_connection`), how bytes are got (`_wire`).

The theory. Reading is *pull*: whoever waits for something from the peer (a message, a pong, the
Close) drives the socket itself if nobody else does; the others park. Everyone who leaves, however
it leaves, hands over: a parked task is woken and drives on. There is no reader task, so a handler
that does not receive exerts TCP backpressure, and a received message costs no task switch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import trio
from wsproto.events import Ping, Pong

from ._protocol import PeerClose

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ._close import Close
    from ._protocol import Failure
    from ._protocol import Protocol as FrameMachine
    from ._services import Services
    from ._wire import Wire


class Owner(Protocol):
    """Who decides what the bytes mean for the connection."""

    closed: Close | None

    @property
    def closing(self) -> bool: ...
    def answer_ping(self, payload: bytes) -> None: ...
    def pong_arrived(self, payload: bytes) -> None: ...
    def peer_closed(self, event: PeerClose) -> None: ...
    def peer_failed(self, event: Failure) -> None: ...
    def reached_eof(self) -> None: ...
    def read_failed(self, exc: Exception) -> None: ...
    def lose(self) -> None: ...
    def digested(self) -> None: ...


class Reader:
    """Reads one connection's bytes for whoever waits for them.

    Attributes:
        messages: complete messages that nobody has received, oldest first.
        driving: a task is reading the socket.
        eof: the peer's bytes have ended without a Close.
        fault: the peer broke the protocol behind messages that wait to be received. It is acted
            upon when they have been, so that their replies go out before our Close; or at the
            attendant's next tick.
        bytes_in: bytes read so far.
        receiving: a task is in `receive` or reads a message piece by piece.
        receiver: where a task in `receive` parks while another one drives.
        waiters: where everybody else parks.
    """

    __slots__ = (
        "_owner",
        "_read_ahead",
        "_services",
        "_wanted",
        "_wire",
        "bytes_in",
        "driving",
        "eof",
        "fault",
        "messages",
        "protocol",
        "receiver",
        "receiving",
        "waiters",
    )

    def __init__(
        self,
        wire: Wire,
        protocol: FrameMachine,
        services: Services,
        read_ahead: int,
        owner: Owner,
    ) -> None:
        self._wire = wire
        self._services = services
        self._read_ahead = read_ahead
        self._owner = owner
        self.protocol = protocol
        self.messages = protocol.inbox.messages
        self.bytes_in = 0
        self.driving = False
        self.eof = False
        self.fault: Failure | None = None
        self.receiving = False
        self._wanted = False  # by a task that has parked while the background drives
        self.receiver: trio.lowlevel.ParkingLot | None = None
        self.waiters: trio.lowlevel.ParkingLot | None = None

    async def until(self, done: Callable[[], bool]) -> None:
        """Wait for something from the peer; return when it is there or the connection has ended.
        Cancelled: nothing is lost, and somebody else drives on."""
        owner = self._owner
        if self.waiters is None:
            self.waiters = trio.lowlevel.ParkingLot()
        try:
            while not done() and owner.closed is None:
                if self.eof:
                    owner.lose()
                elif self.driving or self.fault or self.paused():
                    self._wanted = True
                    await self.waiters.park()
                else:
                    await self.drive()
        finally:
            self.hand_over()

    def for_message(self) -> Awaitable[None]:
        """One wait of the task in `receive`; the caller looks again. Cancelled: as `until`.

        What is to be awaited is handed on, not awaited here: a coroutine in between would take 230
        bytes of every idle connection.
        """
        if self.fault is None and not self.eof:
            if not self.driving:
                return self.drive()
            if self.receiver is None:
                self.receiver = trio.lowlevel.ParkingLot()
            self._wanted = True
            return self.receiver.park()
        if self.fault is not None:
            self._owner.peer_failed(self.fault)
        else:
            self._owner.lose()
        return trio.lowlevel.checkpoint_if_cancelled()  # noqa: ASYNC105  the caller awaits it

    def begin_receiving(self) -> None:
        if self.receiving:
            raise trio.BusyResourceError("another task is receiving on this connection")
        self.receiving = True

    def end_receiving(self) -> None:
        self.receiving = False
        self.hand_over()

    def paused(self) -> bool:
        """Whether reading must wait for `receive`: what was read ahead fills its bound."""
        return self.protocol.inbox.waiting >= max(self._read_ahead, 1)

    def hand_over(self) -> None:
        """Whoever stops waiting calls this: if nobody drives, a parked task must."""
        if self.driving or self._owner.closed is not None:
            return
        if self.receiver:
            self.receiver.unpark()
        elif self.waiters:
            self.waiters.unpark()

    def wake_all(self) -> None:
        for lot in (self.receiver, self.waiters):
            if lot:
                lot.unpark_all()

    async def drive(self) -> None:
        """One turn at the socket, for whoever waits. Cancelled: nothing was read."""
        protocol, wire = self.protocol, self._wire
        self.driving = True
        try:
            if protocol.unparsed:  # the bound on events stopped us; let others run first
                await trio.lowlevel.checkpoint()
            elif wire.immediate is True:
                await wire.readable()
                data = wire.read_now(protocol.missing)
                if data is None:
                    return  # woken for nothing; who waits looks again
                self._services.calls = 0
                self._take(data)
            else:
                data = await wire.read(protocol.missing)
                self._services.calls = 0
                self._take(data)
        except Exception as exc:  # noqa: BLE001  a stream's own kind; the peer is lost
            self._owner.read_failed(exc)
        finally:
            self.driving = False
        if protocol.unparsed:
            self.digest()
        elif self.receiver:
            self.receiver.unpark()

    def _take(self, data: bytes) -> None:
        if data:
            self.bytes_in += len(data)
            if self._owner.closed is None:
                self.protocol.feed(data)
        else:
            self.eof = True
            self._owner.reached_eof()

    def read_now(self) -> bool:
        """Read what is there without waiting, where the wire can; whether there was anything."""
        if self._wire.immediate is False:
            return False
        try:
            data = self._wire.read_now()
        except (OSError, trio.ClosedResourceError) as exc:
            self._owner.read_failed(exc)
            return False
        if data is not None:
            self._take(data)
        return bool(data)

    def attend(self) -> None:
        """Read, once, for a connection that nobody reads; the attendant calls it at a tick."""
        if self.fault is not None:
            self._owner.peer_failed(self.fault)
        if self.driving or self.eof or self.fault or self.paused():
            return
        if not self.protocol.unparsed and self.read_now():
            self.digest()
        if self._driven_in_background():
            self._services.start(self._drive_in_background)

    def _driven_in_background(self) -> bool:
        """Whether there is something to do for a background driver: all reading where the wire
        cannot be tried; else only parsing what was read, if it is more than one go."""
        if self.driving or self.eof or self.fault or self.paused():
            return False
        if self._owner.closed is not None:
            return False
        return self.protocol.unparsed or self._wire.immediate is False

    async def _drive_in_background(self) -> None:
        """Drive for nobody in particular until somebody comes. No read is ever cancelled: who comes
        parks, and drives on when the read in hand is done."""
        self._wanted = False
        while self._driven_in_background() and not self._wanted:
            await self.drive()
        self.hand_over()

    def digest(self) -> None:
        """Have the owner act upon what the last bytes mean."""
        owner = self._owner
        if owner.closed is not None:
            return
        control = self.protocol.parse()
        if control:
            for event in control:
                if isinstance(event, Ping):
                    owner.answer_ping(bytes(event.payload))
                elif isinstance(event, Pong):
                    owner.pong_arrived(bytes(event.payload))
                elif isinstance(event, PeerClose):
                    owner.peer_closed(event)
                elif self.messages and not owner.closing:
                    self.fault = event
                else:
                    owner.peer_failed(event)
            owner.digested()
        if self.receiver:
            self.receiver.unpark()
