"""The life of one open connection, and above all its end: the close state machine.

Lives here: what the peer's Close, pings, pongs, faults and EOF mean, and the teardown. Must never
live here: HTTP, policy, handlers, the application's calls (`_websocket`), who reads (`_reader`),
who writes (`_writer`).

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

from ._close import Close
from ._pings import Pings
from ._protocol import Protocol
from ._reader import Reader
from ._wire import open_wire
from ._writer import Writer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wsproto.extensions import Extension

    from ._close import Initiator
    from ._limits import Limits
    from ._pings import PendingPing
    from ._protocol import Failure, PeerClose
    from ._services import Services

LINGER_BYTES = 1024 * 1024
"""What is read and dropped, at most, so that our Close reaches a peer that is still sending: a
socket closed with unread bytes is reset by the kernel, and the Close may be lost with it."""

LINGER_READ_COST = 4 * 1024
"""What one read counts at least, so that a peer which dribbles bytes does not cost more turns."""

SALVAGE_READS = 4
"""Reads tried, without waiting, for what a peer said before it stopped listening."""

FAREWELL_PASSES = 3
"""Scheduler passes a stream's flusher gets to put a last Close out before it is closed by force:
enough for TLS over a socket that takes the bytes, nothing for a peer that does not."""


class Connection:
    """One open WebSocket connection over `stream`, which it owns. Its own owner ends it.

    Attributes:
        closed: how it ended; None while that is open.
        cause: the exception that ended it, if one did.
        pings: our pings under way.
    """

    __slots__ = (
        "_client",
        "_close_sent",
        "_close_timeout",
        "_gone",
        "_linger",
        "_patience",
        "_wire",
        "cause",
        "closed",
        "pings",
        "protocol",
        "reader",
        "services",
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
        self._close_timeout = limits.close_timeout
        self._close_sent = False
        self._linger = False
        self._patience: trio.CancelScope | None = None
        self._gone = trio.Event()
        self._wire = open_wire(stream)
        self.services = services
        self.protocol = Protocol(
            client=client, limits=limits, extensions=extensions, trailing_data=trailing_data
        )
        self.reader = Reader(self._wire, self.protocol, services, limits.read_ahead, self)
        self.writer = Writer(self._wire, services, limits.max_outbox, self)
        self.closed: Close | None = None
        self.cause: BaseException | None = None
        self.pings = Pings()

    # -- pings -----------------------------------------------------------------------------------

    def queue_ping(self) -> PendingPing:
        """Send a ping of ours."""
        ping = self.pings.new()
        self.writer.outbox.append(self.protocol.ping(ping.payload))
        self.writer.mark(ping)
        self.writer.write_out()
        return ping

    def pong_arrived(self, payload: bytes) -> None:
        if self.pings.answered(payload, trio.current_time()) and self.reader.waiters:
            self.reader.waiters.unpark_all()

    def answer_ping(self, payload: bytes) -> None:
        """Queue the pong; `digested` writes it."""
        if not self._close_sent:
            pong = self.protocol.pong(payload)
            self.writer.outbox.append_pong(pong, blocked=self.writer.blocked)

    def digested(self) -> None:
        self.writer.write_out()

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

    def peer_closed(self, event: PeerClose) -> None:
        # RFC 6455 section 7.1.1: the server closes TCP first, so a client waits for that.
        self._linger = self._client
        initiator: Initiator = "local" if self._close_sent else "peer"
        how = Close(code=event.code, reason=event.reason, initiator=initiator)
        self._end(how, answer=event)

    def peer_failed(self, event: Failure) -> None:
        if self._close_sent:  # it broke the protocol instead of answering our Close
            self.lose()
            return
        self._linger = True
        how = Close(code=event.code, reason=event.reason, initiator="local")
        self._end(how, answer=event)

    def reached_eof(self) -> None:
        if self._close_sent:
            self.lose()
        else:  # receiving is over, sending is not: the end is decided when somebody asks
            self.reader.wake_all()

    def read_failed(self, exc: Exception) -> None:
        if self.closed is None:
            self.writer.stop()
            self.lose(exc)

    def write_failed(self, exc: Exception) -> None:
        """The wire takes no more. What the peer said before that counts."""
        if self._wire.immediate:
            self._salvage()
        self.lose(exc)

    def _salvage(self) -> None:
        for _ in range(SALVAGE_READS):
            while self.protocol.unparsed and self.closed is None:
                self.reader.digest()
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
        self.reader.wake_all()
        self.writer.wake_senders()
        self.writer.write_out()
        if self._wire.immediate and not outbox.size and not self._linger:
            self._vanish()
        else:
            self._see_out_soon()

    def _see_out_soon(self) -> None:
        if self._patience is None:
            deadline = trio.current_time() + self._close_timeout
            self._patience = trio.CancelScope(deadline=deadline)
            self.services.start(self._see_out, self._patience)

    async def _see_out(self, patience: trio.CancelScope) -> None:
        """The closer: from the beginning of the end until the socket is gone."""
        with patience:
            await self.reader.until(lambda: False)
            await self.writer.drained()
            try:
                if self._linger:
                    await self._drain_input()
                await self._wire.aclose()
            except Exception:  # noqa: BLE001, S110  closed all the same; the story is told already
                pass
        self.lose()
        if not self._wire.immediate:
            await self._close_by_force()
        self._vanish()

    async def _drain_input(self) -> None:
        await self._wire.half_close()
        budget = LINGER_BYTES
        while budget > 0 and not self.reader.eof:
            data = await self._wire.read()
            if not data:
                break
            budget -= max(len(data), LINGER_READ_COST)

    async def _close_by_force(self) -> None:
        for _ in range(FAREWELL_PASSES):
            if not self.writer.outbox.size:
                break
            await trio.lowlevel.cancel_shielded_checkpoint()
        with trio.CancelScope() as scope:
            scope.cancel()
            try:
                await self._wire.aclose()
            except Exception:  # noqa: BLE001, S110  closed all the same
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
