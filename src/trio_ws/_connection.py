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
closer (`_closer`) sees a begun end through within `close_timeout`.

Touch the machine synchronously, await one thing, look again: after every await anything above may
have become true.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ._close import Close
from ._closer import Closer
from ._endings import ending
from ._pings import Pings
from ._protocol import Protocol
from ._reader import Reader
from ._wire import open_wire
from ._writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wsproto.extensions import Extension

    from ._close import Initiator
    from ._errors import ConnectionClosed
    from ._limits import Limits
    from ._pings import PendingPing
    from ._protocol import Failure, PeerClose
    from ._services import Services
    from ._writer import Full

SALVAGE_READS = 4
"""Reads tried, without waiting, for what a peer said before it stopped listening."""


class Connection:
    """One open WebSocket connection over `stream`, which it owns. Its own owner ends it.

    Attributes:
        closed: how it ended; None while that is open.
        cause: the exception that ended it, if one did.
        on_end: called once when it is decided how it ended, by whatever code decides it.
        own: the application itself has closed it.
        pings: our pings under way.
        sent: messages sent so far.
    """

    __slots__ = (
        "_client",
        "_close_sent",
        "_closer",
        "_wire",
        "cause",
        "closed",
        "on_end",
        "own",
        "pings",
        "protocol",
        "reader",
        "sent",
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
        self._close_sent = False
        self._wire = open_wire(stream)
        self.services = services
        self.protocol = Protocol(
            client=client, limits=limits, extensions=extensions, trailing_data=trailing_data
        )
        self.reader = Reader(self._wire, self.protocol, services, limits.read_ahead, self)
        self.writer = Writer(self._wire, services, limits.max_outbox, self)
        self._closer = Closer(
            wire=self._wire,
            reader=self.reader,
            writer=self.writer,
            services=services,
            timeout=limits.close_timeout,
            owner=self,
        )
        self.closed: Close | None = None
        self.cause: BaseException | None = None
        self.on_end: Callable[[], None] | None = None
        self.own = False
        self.pings = Pings()
        self.sent = 0

    # -- what the calls share --------------------------------------------------------------------

    async def clear_to_send(self, full: Full) -> None:
        """Return when the outbox takes a frame, raise when it never will again. Cancelled: nothing
        has happened."""
        writer = self.writer
        if not writer.outbox.sealed:
            if full():
                await writer.room(full)
            if not writer.outbox.sealed:
                return
        await self.reader.until(lambda: False)
        raise self.ended(sending=True) from self.cause

    def ended(self, *, sending: bool) -> ConnectionClosed:
        """A new exception that tells the end; `cause` is to be chained to it."""
        assert self.closed is not None
        return ending(self.closed, own=self.own, sending=sending)

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
        if self.writer.outbox.sealed:
            return
        self.protocol.inbox.discard()
        if self.reader.fault is not None:  # nobody would parse the answer to our Close
            self.peer_failed(self.reader.fault)
        else:
            self._seal(code, reason)
            self._closer.begin()
            self.writer.write_out()

    def _seal(self, code: int, reason: str) -> None:
        self._close_sent = True
        self.writer.outbox.seal(self.protocol.close(code, reason))
        self.writer.wake_senders()

    def peer_closed(self, event: PeerClose) -> None:
        # RFC 6455 section 7.1.1: the server closes TCP first, so a client waits for that.
        self._closer.linger = self._client
        initiator: Initiator = "local" if self._close_sent else "peer"
        how = Close(code=event.code, reason=event.reason, initiator=initiator)
        self._end(how, answer=event)

    def peer_failed(self, event: Failure) -> None:
        if self._close_sent:  # it broke the protocol instead of answering our Close
            self.lose()
            return
        self._closer.linger = True
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
        if self._wire.immediate is True:
            self._salvage()
        self.lose(exc)

    def _salvage(self) -> None:
        for _ in range(SALVAGE_READS):
            while self.protocol.unparsed and self.closed is None:
                self.reader.digest()
            if self.closed is not None or not self.reader.read_now():
                return

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
        self._closer.finish()
        if self.on_end is not None:
            self.on_end()

    def kill(self) -> None:
        """End now: a Close is offered once if none was sent, nothing is waited for. On a plain
        socket `wait_gone` then returns at once, on another stream after a few scheduler passes."""
        if self.gone:
            return
        if not self.writer.outbox.sealed:
            self._seal(1001, "")
            self.writer.write_out()
        self.lose()
        self._closer.force()

    def give_up(self, cause: Exception) -> None:
        """The peer is dead: offer a Close 1011 once, wait for nothing."""
        if not self.writer.outbox.sealed:
            self._seal(1011, "timeout")
            self.writer.write_out()
        self.lose(cause)
        self.kill()

    @property
    def closing(self) -> bool:
        """The end has begun; the closer's clock runs."""
        return self.writer.outbox.sealed

    @property
    def gone(self) -> bool:
        """The socket is closed."""
        return self._closer.gone

    @property
    def spoken(self) -> int:
        """Messages sent, messages and fragments received so far."""
        return self.sent + self.protocol.inbox.received + self.protocol.inbox.fragments

    def fileno(self) -> int:
        """The socket's descriptor, -1 where there is none."""
        return self._wire.fileno() if self._wire.immediate is True else -1

    def unacknowledged(self) -> int:
        """Bytes on their way to the peer's kernel; 0 where that cannot be known."""
        return self._wire.unacknowledged() if self._wire.immediate is True else 0

    async def wait_gone(self) -> None:
        """Wait until the socket is closed. Cancelled: nothing happens."""
        await self._closer.wait_gone()
