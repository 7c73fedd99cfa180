"""Messages of any size, piece by piece, in constant memory.

Lives here: the blocks of `WebSocket.message_writer` and `message_reader`, and what they hand out.
Must never live here: frames, or how a connection ends.

The blocks are classes and no `contextlib.asynccontextmanager`: its frames are not protected, and an
interrupt there would leave a generator behind that holds the connection's one place for a writer or
a receiver until it is collected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

import trio

from ._instruments import payload_size

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from ._connection import Connection

Kind: TypeAlias = Literal["text", "binary"]


class MessageWriter:
    """Writes one message in fragments (RFC 6455 section 5.4). Made by `WebSocket.message_writer`.

    Attributes:
        started: a fragment has been queued; only a final one can complete the message.
        over: the block has been left.
        size: bytes of payload queued so far.
    """

    __slots__ = ("_compress", "_connection", "_text", "over", "size", "started")

    def __init__(self, connection: Connection, kind: Kind, compress: bool | None) -> None:
        self._connection = connection
        self._text = kind == "text"
        self._compress = compress
        self.started = False
        self.over = False
        self.size = 0

    @trio.lowlevel.enable_ki_protection
    async def send(self, chunk: str | bytes | bytearray | memoryview) -> None:
        """Send a piece of the message: ``str`` into a text message, bytes-like into a binary one.

        Waits while more than ``limits.max_outbox`` bytes wait to be written.

        Raises:
            TypeError, ValueError: as `WebSocket.send`; the message goes on without this piece.
            ConnectionClosed: the connection has ended; the message is not completed.
            trio.ClosedResourceError: the block has been left.

        Cancelled: nothing of this piece was sent. The message goes on if you catch that inside
        the block; leaving the block by it closes the connection.
        """
        wanted = str if self._text else (bytes, bytearray, memoryview)
        if not isinstance(chunk, wanted):
            kind = "text" if self._text else "binary"
            raise TypeError(f"not a piece of a {kind} message: {type(chunk).__name__}")
        await self._connection.services.breathe()
        await self._queue(chunk, final=False)

    @trio.lowlevel.enable_ki_protection
    async def finish(self) -> None:
        """Complete the message. Cancelled: it is not complete, and may be finished still."""
        await self._queue("" if self._text else b"", final=True)
        self._connection.sent += 1

    async def _queue(self, chunk: str | bytes | bytearray | memoryview, *, final: bool) -> None:
        connection = self._connection
        writer = connection.writer
        await connection.clear_to_send(writer.full_for_pieces)
        if self.over:  # a piece now would be the beginning of another message
            raise trio.ClosedResourceError("the block of this message has been left")
        frame = connection.protocol.encode(chunk, final=final, compress=self._compress)
        writer.outbox.append(frame)
        self.started = True
        self.size += payload_size(chunk)
        writer.write_out()
        if connection.closed is not None:
            raise connection.ended(sending=True) from connection.cause


class Writing:
    """The block of `WebSocket.message_writer`, which tells its promises."""

    __slots__ = ("_connection", "_kind", "_out", "_report")

    def __init__(
        self,
        connection: Connection,
        kind: Kind,
        compress: bool | None,
        report: Callable[[int, Kind], None] | None,
    ) -> None:
        """
        Args:
            report: called with size (bytes) and kind of a message that has been completed.
        """
        if kind not in ("text", "binary"):
            raise ValueError(f'a message is "text" or "binary", not {kind!r}')
        self._connection = connection
        self._kind: Kind = kind
        self._report = report
        self._out = MessageWriter(connection, kind, compress)

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> MessageWriter:
        connection = self._connection
        await connection.services.breathe()
        await connection.clear_to_send(connection.writer.full)
        connection.writer.composing = True
        return self._out

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        out, complete = self._out, False
        try:
            if exc is None:
                await out.finish()
                complete = True
                if self._report is not None:  # here: what is written next may end the connection
                    self._report(out.size, self._kind)
        finally:
            out.over = True
            if out.started and not complete:
                self._connection.start_close(1011, "a message was left unfinished")
            self._connection.writer.end_composing()


class MessageReader:
    """The pieces of one message, as they arrive. Made by `WebSocket.message_reader`.

    Iterate over it: pieces are never empty, text is split between code points, the iteration ends
    with the message.

    Attributes:
        kind: "text" (pieces are ``str``) or "binary" (``bytes``).
        over: the block has been left.
        size: bytes of payload handed out so far.
    """

    __slots__ = ("_busy", "_connection", "kind", "over", "size")

    def __init__(self, connection: Connection, kind: Kind) -> None:
        self._connection = connection
        self._busy = False
        self.kind: Kind = kind
        self.over = False
        self.size = 0

    def __aiter__(self) -> MessageReader:
        return self

    @trio.lowlevel.enable_ki_protection
    async def __anext__(self) -> str | bytes:
        """The next piece.

        Raises:
            ConnectionClosed: the connection ended before the message did; as `WebSocket.receive`.
            trio.BusyResourceError: another task waits for a piece.
            trio.ClosedResourceError: the block has been left.

        Cancelled: no piece is lost.
        """
        if self._busy:
            raise trio.BusyResourceError("another task is reading this message")
        connection = self._connection
        inbox, reader = connection.protocol.inbox, connection.reader
        self._busy = True
        try:
            if inbox.pieces or inbox.streamed_whole:
                await connection.services.breathe()
            while not inbox.pieces or self.over:
                if self.over:
                    raise trio.ClosedResourceError("the block of this message has been left")
                if inbox.streamed_whole:
                    raise StopAsyncIteration
                if connection.closed is not None:
                    raise connection.ended(sending=False) from connection.cause
                await reader.for_message()
            piece = inbox.pop_piece()
        finally:
            self._busy = False
            if reader.waiters:
                reader.hand_over()
        self.size += payload_size(piece)
        return piece


class Reading:
    """The block of `WebSocket.message_reader`, which tells its promises."""

    __slots__ = ("_chunks", "_connection", "_report")

    def __init__(self, connection: Connection, report: Callable[[int, Kind], None] | None) -> None:
        """
        Args:
            report: called at the end with size (bytes) and kind of what was handed out.
        """
        self._connection = connection
        self._report = report
        self._chunks: MessageReader | None = None

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> MessageReader:
        connection = self._connection
        inbox, reader = connection.protocol.inbox, connection.reader
        reader.begin_receiving()
        try:
            if inbox.begun:
                await connection.services.breathe()
            while not inbox.begun:
                if connection.closed is not None:
                    raise connection.ended(sending=False) from connection.cause
                await reader.for_message()
        except BaseException:
            reader.end_receiving()
            raise
        self._chunks = MessageReader(connection, "text" if inbox.stream() else "binary")
        return self._chunks

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        chunks = self._chunks
        assert chunks is not None
        chunks.over = True
        self._connection.protocol.inbox.end_stream()
        self._connection.reader.end_receiving()
        if self._report is not None:
            self._report(chunks.size, chunks.kind)
