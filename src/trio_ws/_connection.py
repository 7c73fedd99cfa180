"""The life of one open connection: reading on demand, answering, ending.

Lives here: who reads the socket, the close state machine, the teardown. Must never live here: HTTP,
policy, handlers, the application's calls (`_websocket`), how bytes are written (`_writer`) or read
(`_wire`).

Reading is *pull*. Whoever waits for something from the peer (a message, a pong, the Close) drives
the socket itself if nobody else does; others park. Everyone who leaves, however it leaves, hands
over: a parked task is woken and drives on. There is no reader task, so a handler that does not
receive exerts TCP backpressure, and a received message costs no task switch.

The end is a chain of facts, each of which, once true, stays true:

    open --> sealed     our Close is in the outbox, or nothing can be written any more: sends fail
         --> closed     it is decided how it ended: both Close frames have passed, the peer broke
                        the protocol, or it was lost; every waiter wakes with this one story
         --> gone       the socket is closed

Three inputs move it: a local close (`start_close`), the peer's Close, and EOF or an error. The
closer, one service task, sees a begun end through within `close_timeout`: it reads for the peer's
Close, flushes, lingers where our Close must reach a peer that is still sending, closes the socket.
Where nothing is left to wait for, a plain socket is closed on the spot and no closer is needed.

Touch the machine synchronously, await one thing, look again: after every await anything above may
have become true.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from wsproto.events import Ping, Pong

from ._close import Close
from ._protocol import Failure, PeerClose, Protocol
from ._wire import READ_SIZE, open_wire
from ._writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wsproto.extensions import Extension

    from ._close import Initiator
    from ._limits import Limits
    from ._services import Services

LINGER_BYTES = 1024 * 1024
"""What is read and dropped, at most, so that our Close reaches a peer that is still sending: a
socket closed with unread bytes is reset by the kernel, and the Close may be lost with it."""

SALVAGE_ROUNDS = 4
"""Reads tried, without waiting, for what a peer said before it stopped listening."""

FAREWELL_PASSES = 3
"""Scheduler passes a stream's flusher gets to put a last Close out before it is closed by force:
enough for TLS over a socket that takes the bytes, nothing for a peer that does not."""


class PendingPing:
    """A ping of ours that waits for its pong (RFC 6455 section 5.5.2)."""

    __slots__ = ("round_trip", "sent_at")

    def __init__(self) -> None:
        self.sent_at: float | None = None
        self.round_trip: float | None = None


class Connection:
    """One open WebSocket connection over `stream`, which it owns. Its own owner ends it.

    Attributes:
        closed: how it ended; None while that is open.
        cause: the exception that ended it, if one did.
        eof: the peer's bytes have ended without a Close.
        driving: a task is reading the socket.
        reader: the task parked in `receive` while another one drives.
        pings: our pings under way, oldest first.
        latency: the last measured round trip of a ping, in seconds.
    """

    __slots__ = (
        "_client",
        "_close_sent",
        "_gone",
        "_limits",
        "_linger",
        "_patience",
        "_wire",
        "cause",
        "closed",
        "driving",
        "eof",
        "latency",
        "pings",
        "pings_sent",
        "protocol",
        "reader",
        "services",
        "waiters",
        "writer",
    )

    def __init__(
        self,
        stream: trio.abc.Stream,
        *,
        client: bool,
        limits: Limits,
        services: Services,
        extensions: Sequence[Extension] = (),
        trailing_data: bytes = b"",
    ) -> None:
        self._client = client
        self._limits = limits
        self._wire = open_wire(stream)
        self._close_sent = False
        self._linger = False
        self._patience: trio.CancelScope | None = None
        self._gone = trio.Event()
        self.services = services
        self.protocol = Protocol(
            client=client, limits=limits, extensions=extensions, trailing_data=trailing_data
        )
        self.writer = Writer(self._wire, services, limits.max_outbox, self)
        self.closed: Close | None = None
        self.cause: BaseException | None = None
        self.eof = False
        self.driving = False
        self.reader: trio.lowlevel.ParkingLot | None = None
        self.waiters: trio.lowlevel.ParkingLot | None = None
        self.pings: dict[bytes, PendingPing] = {}
        self.pings_sent = 0
        self.latency: float | None = None

    # -- reading ---------------------------------------------------------------------------------

    async def until(self, done: Callable[[], bool]) -> None:
        """Wait for something from the peer; return when it is there or the connection has ended.
        Cancelled: nothing is lost, and somebody else drives on."""
        if self.waiters is None:
            self.waiters = trio.lowlevel.ParkingLot()
        try:
            while not done() and self.closed is None:
                if self.eof:
                    self.lose()
                elif self.driving or self._paused():
                    await self.waiters.park()
                else:
                    await self.drive()
        finally:
            self.hand_over()

    def _paused(self) -> bool:
        """Whether reading must wait for `receive`: what was read ahead fills its bound."""
        protocol = self.protocol
        return bool(protocol.messages) and protocol.waiting >= self._limits.read_ahead

    def hand_over(self) -> None:
        """Whoever stops waiting calls this: if nobody drives, a parked task must."""
        if self.driving or self.closed is not None:
            return
        if self.reader:
            self.reader.unpark()
        elif self.waiters:
            self.waiters.unpark()

    async def drive(self) -> None:
        """One turn at the socket, for whoever waits. Cancelled: nothing was read."""
        protocol = self.protocol
        self.driving = True
        try:
            if protocol.unparsed:  # the bound on events stopped us; let others run first
                await trio.lowlevel.checkpoint()
            else:
                data = await self._wire.read()
                self.services.calls = 0
                if data:
                    protocol.feed(data)
                else:
                    self._reached_eof()
        except Exception as exc:  # a stream may raise its own kind; the peer is lost either way
            self._read_failed(exc)
        finally:
            self.driving = False
        if self.closed is None and protocol.unparsed:
            self._digest()

    def _digest(self) -> None:
        """Act upon what the last bytes mean."""
        answered = False
        for event in self.protocol.parse():
            if isinstance(event, Ping):
                if not self._close_sent:
                    pong = self.protocol.pong(event.payload)
                    self.writer.outbox.append_pong(pong, blocked=self.writer.blocked)
                    answered = True
            elif isinstance(event, Pong):
                self._pong_arrived(bytes(event.payload))
            elif isinstance(event, PeerClose):
                self._peer_closed(event)
            else:
                self._peer_failed(event)
        if answered:
            self.writer.write_out()
        if self.reader and self.protocol.messages:
            self.reader.unpark()

    def _pong_arrived(self, payload: bytes) -> None:
        """A pong answers its ping and every older one (RFC 6455 section 5.5.3)."""
        if payload not in self.pings:
            return
        now = trio.current_time()
        for key, ping in list(self.pings.items()):
            del self.pings[key]
            sent_at = now if ping.sent_at is None else ping.sent_at
            ping.round_trip = self.latency = now - sent_at
            if key == payload:
                break
        if self.waiters:
            self.waiters.unpark_all()

    def queue_ping(self) -> tuple[bytes, PendingPing]:
        """Queue a ping of ours, under a payload that no other one of this connection has."""
        ping, payload = PendingPing(), self.pings_sent.to_bytes(8, "big")
        self.pings_sent += 1
        self.pings[payload] = ping
        self.writer.outbox.append(self.protocol.ping(payload))
        self.writer.mark(ping)
        self.writer.write_out()
        return payload, ping

    # -- the three inputs of the end -------------------------------------------------------------

    def start_close(self, code: int, reason: str = "") -> None:
        """Begin the closing handshake (RFC 6455 section 7.1.2), unless the end has begun already.

        Messages that nobody has received are dropped; what was sent goes out first. A service task
        sees the end through within ``limits.close_timeout``.
        """
        if not self.writer.outbox.sealed:
            self.protocol.discard()
            self._seal(code, reason)
            self._see_out_soon()
            self.writer.write_out()

    def _seal(self, code: int, reason: str) -> None:
        self._close_sent = True
        self.writer.outbox.seal(self.protocol.close(code, reason))
        self.writer.wake_senders()

    def _peer_closed(self, event: PeerClose) -> None:
        # RFC 6455 section 7.1.1: the server closes TCP first, so a client waits for that.
        self._linger = self._client
        initiator: Initiator = "local" if self._close_sent else "peer"
        how = Close(code=event.code, reason=event.reason, initiator=initiator)
        self._end(how, answer=event)

    def _peer_failed(self, failure: Failure) -> None:
        if self._close_sent:  # it broke the protocol instead of answering our Close
            self.lose()
            return
        self._linger = True
        how = Close(code=failure.code, reason=failure.reason, initiator="local")
        self._end(how, answer=failure)

    def _reached_eof(self) -> None:
        self.eof = True
        if self._close_sent:
            self.lose()
        else:  # receiving is over, sending is not: the end is decided when somebody asks
            self._wake_all()

    def _read_failed(self, exc: Exception) -> None:
        if self.closed is None:
            self.writer.stop()
            self.lose(exc)

    def write_failed(self, exc: Exception) -> None:
        """The writer's report: the wire takes no more. What the peer said before that counts."""
        if self._wire.immediate:
            self._salvage()
        self.lose(exc)

    def _salvage(self) -> None:
        for _ in range(SALVAGE_ROUNDS):
            while self.protocol.unparsed and self.closed is None:
                self._digest()
            try:
                data = self._wire.read_now() if self._wire.immediate else b""
            except (OSError, trio.ClosedResourceError):
                return
            if not data or self.closed is not None:
                return
            self.protocol.feed(data)

    def lose(self, cause: BaseException | None = None) -> None:
        """It has ended without a closing handshake (RFC 6455 section 7.1.5), if it had not yet."""
        self._end(Close(code=1006, initiator="nobody"), cause=cause)

    # -- the end ---------------------------------------------------------------------------------

    def _end(
        self,
        how: Close,
        *,
        cause: BaseException | None = None,
        answer: PeerClose | Failure | None = None,
    ) -> None:
        """Decide how the connection ended; the first decision stands. Start the teardown."""
        if self.closed is not None:
            return
        self.closed, self.cause = how, cause
        outbox = self.writer.outbox
        if answer is not None and not outbox.sealed:
            self._seal(answer.code, answer.reason)
        outbox.sealed = True
        self._wake_all()
        self.writer.wake_senders()
        self.writer.write_out()
        if self._wire.immediate and not outbox.size and not self._linger:
            self._vanish()
        else:
            self._see_out_soon()

    def _wake_all(self) -> None:
        for lot in (self.reader, self.waiters):
            if lot:
                lot.unpark_all()

    def _see_out_soon(self) -> None:
        if self._patience is None:
            deadline = trio.current_time() + self._limits.close_timeout
            self._patience = trio.CancelScope(deadline=deadline)
            self.services.start(self._see_out, self._patience)

    async def _see_out(self, patience: trio.CancelScope) -> None:
        """The closer: from the beginning of the end until the socket is gone."""
        with patience:
            await self.until(lambda: False)
            await self.writer.drained()
            try:
                if self._linger:
                    await self._drain_input()
                await self._wire.aclose()
            except Exception:  # noqa: S110  it is closed all the same, and the story is told already
                pass
        self.lose()
        if not self._wire.immediate:
            await self._close_by_force()
        self._vanish()

    async def _drain_input(self) -> None:
        await self._wire.half_close()
        budget = LINGER_BYTES
        while budget > 0 and not self.eof:
            data = await self._wire.read()
            if not data:
                break
            budget -= max(len(data), READ_SIZE // 16)

    async def _close_by_force(self) -> None:
        for _ in range(FAREWELL_PASSES):
            if not self.writer.outbox.size:
                break
            await trio.lowlevel.cancel_shielded_checkpoint()
        with trio.CancelScope() as scope:
            scope.cancel()
            try:
                await self._wire.aclose()
            except Exception:  # noqa: S110  closed all the same
                pass

    def _vanish(self) -> None:
        if self._wire.immediate:
            self._wire.close_now()
        self.writer.stop()
        self._gone.set()

    def kill(self) -> None:
        """End now: a Close is offered once if none was sent, nothing is waited for. On a plain
        socket `wait_gone` then returns at once, on another stream after a few scheduler passes."""
        if self._gone.is_set():
            return
        if not self.writer.outbox.sealed:
            self._seal(1001, "")
        self._see_out_soon()
        self.writer.write_out()
        self.lose()
        if self._wire.immediate:
            self._vanish()
        elif self._patience is not None:
            self._patience.cancel()

    async def wait_gone(self) -> None:
        """Wait until the socket is closed. Cancelled: nothing happens."""
        await self._gone.wait()
