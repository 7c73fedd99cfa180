"""Messages of any size, piece by piece, in constant memory.

Lives here: what `WebSocket.message_writer` and `message_reader` hand out. Must never live here:
frames, or how a connection ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._connection import Connection
    from ._errors import ConnectionClosed

Kind: TypeAlias = Literal["text", "binary"]


class MessageWriter:
    """Writes one message in fragments (RFC 6455 section 5.4). Made by `WebSocket.message_writer`.

    Attributes:
        started: a fragment has been queued; only a final one can complete the message.
    """

    __slots__ = ("_connection", "_ended", "_text", "started")

    def __init__(
        self,
        connection: Connection,
        kind: Kind,
        ended: Callable[[], ConnectionClosed],
    ) -> None:
        self._connection = connection
        self._text = kind == "text"
        self._ended = ended
        self.started = False

    @trio.lowlevel.enable_ki_protection
    async def send(self, chunk: str | bytes | bytearray | memoryview) -> None:
        """Send a piece of the message: ``str`` into a text message, bytes-like into a binary one.

        Waits while more than ``limits.max_outbox`` bytes wait to be written.

        Raises:
            TypeError, ValueError: as `WebSocket.send`; the message goes on without this piece.
            ConnectionClosed: the connection has ended; the message is not completed.

        Cancelled: nothing of this piece was sent. The message goes on if you catch that inside
        the block; leaving the block by it closes the connection.
        """
        wanted = str if self._text else (bytes, bytearray, memoryview)
        if not isinstance(chunk, wanted):
            kind = "text" if self._text else "binary"
            raise TypeError(f"not a piece of a {kind} message: {type(chunk).__name__}")
        await self._connection.services.breathe()
        await self._queue(chunk, final=False)

    async def finish(self) -> None:
        """Complete the message. Cancelled: it is not complete, and may be finished still."""
        await self._queue("" if self._text else b"", final=True)

    async def _queue(self, chunk: str | bytes | bytearray | memoryview, *, final: bool) -> None:
        connection = self._connection
        writer = connection.writer
        while writer.full_for_pieces():
            await writer.room(writer.full_for_pieces)
        if writer.outbox.sealed:
            await connection.reader.until(lambda: False)
            raise self._ended() from connection.cause
        writer.outbox.append(connection.protocol.encode(chunk, final=final))
        self.started = True
        writer.write_out()


class MessageReader:
    """The pieces of one message, as they arrive. Made by `WebSocket.message_reader`.

    Iterate over it: pieces are never empty, text is split between code points, the iteration ends
    with the message.

    Attributes:
        kind: "text" (pieces are ``str``) or "binary" (``bytes``).
    """

    __slots__ = ("_connection", "_ended", "kind")

    def __init__(
        self, connection: Connection, kind: Kind, ended: Callable[[], ConnectionClosed]
    ) -> None:
        self._connection = connection
        self._ended = ended
        self.kind: Kind = kind

    def __aiter__(self) -> MessageReader:
        return self

    @trio.lowlevel.enable_ki_protection
    async def __anext__(self) -> str | bytes:
        """The next piece.

        Raises:
            ConnectionClosed: the connection ended before the message did; as `WebSocket.receive`.

        Cancelled: no piece is lost.
        """
        connection = self._connection
        inbox = connection.protocol.inbox
        if inbox.pieces or inbox.streamed_whole:
            await connection.services.breathe()
        while not inbox.pieces:
            if inbox.streamed_whole:
                raise StopAsyncIteration
            if connection.closed is not None:
                raise self._ended() from connection.cause
            await connection.reader.for_message()
        return inbox.pop_piece()
