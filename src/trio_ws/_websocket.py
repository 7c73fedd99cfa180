"""The application's view of a connection: `WebSocket`, a trio channel of messages.

Lives here: the calls and what each promises under cancellation. Must never live here: how the
connection reads, writes or ends (`_connection`, `_writer`).

Every coroutine that touches the machine is protected from KeyboardInterrupt, so that an interrupt
arrives at an await and never between two lines that belong together.
"""

from __future__ import annotations

from functools import partial
from itertools import count
from typing import TYPE_CHECKING

import trio

from ._close import check_outgoing_close
from ._protocol import UNJOINED, head_of
from ._streaming import Reading, Writing

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from ._close import Close
    from ._connection import Connection
    from ._instruments import Watchers
    from ._request import UpgradeRequest
    from ._response import Response
    from ._streaming import Kind, MessageReader, MessageWriter

COALESCE = 16 * 1024
"""Replies to messages that arrived together are written together, up to this many bytes."""

_ids = count(1)


class WebSocket(trio.abc.Channel[str | bytes]):
    """One open WebSocket connection (RFC 6455): a `trio.abc.Channel` of ``str`` and ``bytes``.

    ``async for message in ws`` ends quietly when the peer closes in good order (codes 1000, 1001,
    1005) and raises otherwise. Any number of tasks may `send`, `ping`, `close` and `wait_closed` at
    once; one may `receive`. Whoever opened the connection (`serve`, `connect`) owns it and closes
    it; a handler need not.

    Once the connection has ended, every call raises `ConnectionClosed` with the same ``.close``
    (`ConnectionLost` for code 1006), which also is what generic trio code expects:

    * from `receive`: `trio.EndOfChannel` for codes 1000, 1001, 1005, else
      `trio.BrokenResourceError`; messages that came before the end are delivered first;
    * from `send` and `ping`: `trio.BrokenResourceError`;
    * from all of them, after this side's own `close` or `aclose`: `trio.ClosedResourceError`.
    """

    __slots__ = (
        "_connection",
        "_context",
        "_id",
        "_request",
        "_response",
        "_subprotocol",
        "_watchers",
    )

    def __init__(
        self,
        connection: Connection,
        *,
        request: UpgradeRequest,
        response: Response | None = None,
        subprotocol: str | None = None,
        context: object = None,
        watchers: Watchers | None = None,
    ) -> None:
        self._connection = connection
        self._request = request
        self._response = response
        self._subprotocol = subprotocol
        self._context = context
        self._watchers = watchers
        self._id = next(_ids)

    def __repr__(self) -> str:
        state = "open" if self.closed is None else str(self.closed)
        return f"<WebSocket {self._id} {self._request.path!a} {state}>"

    # -- facts -----------------------------------------------------------------------------------

    @property
    def request(self) -> UpgradeRequest:
        """The request of the opening handshake."""
        return self._request

    @property
    def response(self) -> Response | None:
        """The server's answer to the opening handshake, on the client's side; None on a server."""
        return self._response

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol agreed upon (RFC 6455 section 1.9), or None."""
        return self._subprotocol

    @property
    def context(self) -> object:
        """What ``authorize`` returned in its `Accept`: the user, say. Yours; never looked into."""
        return self._context

    @property
    def closed(self) -> Close | None:
        """How the connection ended: the closing handshake is done, or it was lost. None before.
        It may be set a little before the socket is gone."""
        return self._connection.closed

    @property
    def latency(self) -> float | None:
        """The last measured round trip of a ping, keepalive's or your own, in seconds; None before
        the first pong."""
        return self._connection.pings.latency

    @property
    def id(self) -> int:
        """A number no other connection of this process has; for logs."""
        return self._id

    @property
    def local_address(self) -> object:
        """This side's socket address, as the transport names it, or None."""
        return self._request.local_address

    @property
    def peer_address(self) -> object:
        """The peer's socket address, as the transport names it, or None."""
        return self._request.peer_address

    # -- calls -----------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def send(
        self, value: str | bytes | bytearray | memoryview, *, compress: bool | None = None
    ) -> None:
        """Send one message: text from ``str``, binary from anything bytes-like.

        Waits while more than ``limits.max_outbox`` bytes wait to be written. A mutable buffer may
        be changed as soon as this returns.

        Args:
            compress: whether to compress this message (RFC 7692), if compression was agreed upon;
                None leaves it to `Deflate.threshold`.

        Raises:
            TypeError: neither ``str`` nor bytes-like; nothing was sent.
            ValueError: text with a lone surrogate, which UTF-8 cannot carry; nothing was sent.
            ConnectionClosed: the connection has ended or is being closed (see the class).

        Cancelled: not one byte of the message was or will be sent. Returned: it goes out whole, or
        the connection dies. RFC 6455 section 6.1.
        """
        if not isinstance(value, (str, bytes, bytearray, memoryview)):
            raise TypeError(f"a message is str or bytes-like, not {type(value).__name__}")
        connection = self._connection
        writer = connection.writer
        await connection.services.breathe()
        if writer.outbox.sealed or writer.full():
            await connection.clear_to_send(writer.full)
        protocol = connection.protocol
        if type(value) is bytes and len(value) >= UNJOINED and writer.vectored and protocol.plain:
            writer.outbox.append_unjoined(head_of(len(value)), value)  # nobody can change it
            writer.write_out()
        else:
            frame = protocol.encode(value, compress=compress)
            if connection.reader.messages and writer.outbox.size + len(frame) < COALESCE:
                # More replies are likely: the last one, or the next scheduler pass, writes all.
                writer.outbox.append(frame)
                connection.services.write_soon(writer)
            else:
                writer.write_through(frame)
        if connection.closed is not None:
            raise connection.ended(sending=True) from connection.cause
        connection.sent += 1
        if self._watchers is not None:
            self._watchers.message_sent(self, value)

    @trio.lowlevel.enable_ki_protection
    async def receive(self) -> str | bytes:
        """Receive one message, whole: ``str`` from text, ``bytes`` from binary.

        Raises:
            trio.BusyResourceError: another task is receiving.
            ConnectionClosed: the connection has ended (see the class).

        Cancelled: no message is lost or duplicated. RFC 6455 section 6.2.
        """
        connection = self._connection
        reader = connection.reader
        reader.begin_receiving()
        try:
            if reader.messages:
                await connection.services.breathe()
            while not reader.messages:
                if connection.closed is not None:
                    raise connection.ended(sending=False) from connection.cause
                await reader.for_message()
            message = connection.protocol.inbox.pop()
            if self._watchers is not None:
                self._watchers.message_received(self, message)
            return message
        finally:
            reader.receiving = False
            if reader.waiters:
                reader.hand_over()

    def message_writer(
        self, kind: Kind, *, compress: bool | None = None
    ) -> AbstractAsyncContextManager[MessageWriter]:
        """Write one message in fragments, of any size, in constant memory::

            async with ws.message_writer("binary") as out:
                async for chunk in source:
                    await out.send(chunk)

        Other messages wait until the block is left; pings, pongs and the Close frame pass. RFC 6455
        section 5.4.

        Args:
            kind: "text", of ``str``, or "binary", of bytes-like chunks.
            compress: whether to compress this message (RFC 7692), if compression was agreed upon.
                None does: how large it will be is not known.

        Raises:
            ValueError: `kind` is neither "text" nor "binary".
            ConnectionClosed: the connection has ended; from `MessageWriter.send` too.

        Cancelled, or left by any exception: a message of which something was sent can never be
        completed, so the connection is closed with 1011; of which nothing was sent is forgotten.
        """
        watchers = self._watchers
        report = None if watchers is None else partial(watchers.streamed_out, self)
        return Writing(self._connection, kind, compress, report)

    def message_reader(self) -> AbstractAsyncContextManager[MessageReader]:
        """Read one message piece by piece, in constant memory::

            async with ws.message_reader() as chunks:
                async for chunk in chunks:
                    ...

        Entering waits until a message begins. Chunks are ``str`` of a text message, ``bytes`` of a
        binary one, never empty, as they come (RFC 6455 section 5.4). The block may be left at any
        time, by cancellation too: what is left of the message is skipped as it comes, and the next
        `receive` returns the next message. ``limits.max_message`` and ``max_fragments`` hold for
        the whole message.

        Raises:
            trio.BusyResourceError: another task is receiving.
            ConnectionClosed: as `receive`; from the iteration too.

        Cancelled while entering: nothing is lost.
        """
        watchers = self._watchers
        report = None if watchers is None else partial(watchers.streamed_in, self)
        return Reading(self._connection, report)

    @trio.lowlevel.enable_ki_protection
    async def ping(self) -> float:
        """Send a ping and wait for its pong (RFC 6455 sections 5.5.2, 5.5.3).

        While nobody receives and more than ``limits.read_ahead`` bytes of messages wait, the pong
        cannot be read either: the ping waits for the next `receive`.

        Returns:
            The round trip in seconds, counted from when the ping's last byte was written.

        Raises:
            ConnectionClosed: the connection has ended or is being closed (see the class).

        Cancelled: the ping is forgotten, the connection intact.
        """
        connection = self._connection
        await connection.services.breathe()
        await connection.clear_to_send(connection.writer.full_for_pieces)
        ping = connection.queue_ping()
        try:
            await connection.reader.until(lambda: ping.round_trip is not None)
        finally:
            connection.pings.forget(ping)
        if ping.round_trip is None:
            raise connection.ended(sending=True) from connection.cause
        return ping.round_trip

    @trio.lowlevel.enable_ki_protection
    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the connection: flush, closing handshake, socket (RFC 6455 section 7).

        Returns when the socket is gone, after at most ``limits.close_timeout`` seconds; `closed`
        then says whether the peer answered. Messages not yet received are dropped. A second call,
        or one after the peer's Close, waits for the same end.

        Args:
            code: 1000 to 1003, 1007 to 1014 or 3000 to 4999 (section 7.4).
            reason: at most 123 bytes of UTF-8.

        Raises:
            ValueError: `code` or `reason` cannot be sent; the connection is unchanged.

        Cancelled: closes at once, after offering the Close frame once; `trio.Cancelled` goes on.
        """
        check_outgoing_close(code, reason)
        connection = self._connection
        connection.own = True
        connection.protocol.inbox.discard()
        connection.start_close(code, reason)
        try:
            await trio.lowlevel.checkpoint()
            await connection.wait_gone()
        except BaseException:
            connection.kill()
            with trio.CancelScope(shield=True):
                await connection.wait_gone()
            raise

    async def aclose(self) -> None:
        """Close with code 1000, and wait for the end as `close` does. Cancelled: closes at once, so
        `trio.aclose_forcefully` does."""
        await self.close()

    @trio.lowlevel.enable_ki_protection
    async def wait_closed(self) -> Close:
        """Wait until it is decided how the connection ended (RFC 6455 section 7.1.4).

        Returns:
            What `closed` is from now on, also if we closed, and also for 1006: this never raises
            `ConnectionClosed`. The socket may live a little longer.

        Reads ahead, up to ``limits.read_ahead`` bytes, to notice the end; never takes a message
        from `receive`. Cancelled: forgotten, the connection intact.
        """
        await trio.lowlevel.checkpoint()
        await self._connection.reader.until(lambda: False)
        closed = self._connection.closed
        assert closed is not None
        return closed


def internals(ws: WebSocket) -> tuple[Connection, Callable[[str | bytes], None] | None]:
    """For rooms, which send to many without being called by each: the connection, and who is to be
    told of a message sent."""
    watchers = ws._watchers  # noqa: SLF001  a friend of the class, in its own file
    told = None if watchers is None else partial(watchers.message_sent, ws)
    return ws._connection, told  # noqa: SLF001
