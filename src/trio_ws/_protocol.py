"""The frame machine of one connection: bytes in, messages and control values out; no I/O, no trio.

Lives here: the engine (`_engine`: wsproto, or the same compiled) behind the one seam we use of it,
and what its events mean for a connection.
Must never live here: sockets, clocks, the decision when to close.

The theory. wsproto reports a protocol error as a `CloseConnection` event whose state has not moved:
that is a `Failure`, the Close frame is ours to send, and nothing behind it is parsed. It yields one
event per frame *piece*; `_inbox` puts the pieces together. Limits sit in the engine, because it
sees every header before its payload: a frame that declares too much is refused before a byte of it
is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from wsproto.connection import ConnectionState
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage
from wsproto.frame_protocol import CloseReason, FrameProtocol

from ._close import MAX_REASON_BYTES
from ._engine import open_engine
from ._inbox import Inbox, size_of
from ._permessage import PerMessageDeflate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from wsproto.events import Event
    from wsproto.extensions import Extension

    from ._limits import Limits

UNJOINED = 64 * 1024
"""Payloads from this size on are not worth a copy behind their head: two buffers are written."""

MAX_EVENTS = 64
"""Events parsed in one go; between two goes other tasks run (fairness under a flood)."""

_FRAMERS = {client: FrameProtocol(client, []) for client in (False, True)}


@dataclass(frozen=True, kw_only=True, slots=True)
class PeerClose:
    """The peer's Close frame arrived; 1005 if it held no code."""

    code: int
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """The peer broke the protocol or a limit: fail the connection (RFC 6455 section 7.1.7)."""

    code: int
    reason: str


def plain_frame(message: str | bytes) -> bytes:
    """A whole message as a server sends it uncompressed; ValueError as `Protocol.encode`."""
    return bytes(_FRAMERS[False].send_data(message))


def head_of(size: int) -> bytes:
    """The head of a whole binary message of at least `UNJOINED` bytes, as a server sends it
    uncompressed (RFC 6455 section 5.2)."""
    assert size >= UNJOINED
    return b"\x82\x7f" + size.to_bytes(8, "big")


class Protocol:
    """One connection's frames, both directions.

    Attributes:
        inbox: the messages that have arrived.
        plain: a message is the same frame here as on any other plain connection.
        unparsed: what has arrived may hold more than the messages in `inbox`: `parse` tells.
        over: the last word has been said, nothing more is parsed.
    """

    __slots__ = (
        "_deflate",
        "_engine",
        "_events",
        "_framer",
        "_taken",
        "inbox",
        "over",
        "plain",
        "unparsed",
    )

    def __init__(
        self,
        *,
        client: bool,
        limits: Limits,
        extensions: Sequence[Extension] = (),
        trailing_data: bytes = b"",
    ) -> None:
        self._deflate = next((e for e in extensions if isinstance(e, PerMessageDeflate)), None)
        self._engine = open_engine(
            client=client, limits=limits, extensions=extensions, trailing_data=trailing_data
        )
        self._events: Iterator[Event] | None = None
        self._framer = _FRAMERS[client]
        self._taken = 0  # by `feed`, of what the next `parse` may
        self.plain = not client and self._deflate is None
        self.inbox = Inbox()
        self.unparsed = bool(trailing_data)
        self.over = False

    # -- inbound ---------------------------------------------------------------------------------

    @property
    def missing(self) -> int:
        """Bytes of the data frame in hand that have not come, where the engine knows; at least."""
        return self._engine.missing

    def feed(self, data: bytes) -> None:
        """Take in bytes from the peer, any number. Messages that came whole may be in `inbox`
        then; where anything else came, `unparsed` is true."""
        if self.over:
            return
        inbox = self.inbox
        if self.unparsed or not inbox.gathers:
            self._engine.receive_data(data)
            self.unparsed = True
            return
        messages = inbox.messages
        before = len(messages)
        size = self._engine.feed(data, messages, MAX_EVENTS)
        taken = len(messages) - before
        if size is None:
            self.unparsed = True
            self._taken = taken
            size = sum(map(size_of, messages[before:])) if taken else 0
        inbox.waiting += size
        inbox.received += taken

    def parse(self) -> list[Ping | Pong | PeerClose | Failure]:
        """Turn what is `unparsed` into messages (kept in `inbox`) and control values (returned).

        At most `MAX_EVENTS` events a call; `unparsed` then stays true. `PeerClose` and `Failure`
        are final: nothing behind them is parsed.
        """
        control: list[Ping | Pong | PeerClose | Failure] = []
        if not self.unparsed:
            return control
        left = MAX_EVENTS - self._taken
        self._taken = 0
        left -= self._take_whole(left)
        if not left:
            return control
        events = self._events = self._events or self._engine.events()
        for _ in range(left):
            event = next(events, None)
            kind = type(event)
            if kind is TextMessage:
                self.inbox.add(event.data, last=event.message_finished)  # type: ignore[union-attr]
            elif kind is BytesMessage:  # wsproto 1.3.0 has bytearrays here
                self.inbox.add(bytes(event.data), last=event.message_finished)  # type: ignore[union-attr]
            elif event is None:
                self._events = None  # spent; an idle connection is spared the next one
                self.unparsed = False
                break
            elif kind is CloseConnection:
                control.append(self._final(event))  # type: ignore[arg-type]
                break
            else:
                control.append(event)  # type: ignore[arg-type]
        return control

    def _take_whole(self, limit: int) -> int:
        """Have the engine fill the inbox with the messages that came whole; how many."""
        inbox = self.inbox
        if not inbox.gathers:
            return 0
        before = len(inbox.messages)
        inbox.waiting += self._engine.take(inbox.messages, limit)
        taken = len(inbox.messages) - before
        inbox.received += taken
        return taken

    def release(self) -> None:
        """The connection is gone: let go what is large, except for whole messages. It cannot wait
        for the garbage collector, who counts objects and not bytes."""
        self.over = True
        self.unparsed = False
        self.inbox.give_up()
        if self._deflate is not None:
            self._deflate.release()

    def _final(self, event: CloseConnection) -> PeerClose | Failure:
        self.over = True
        self.unparsed = False
        if self._engine.state in (ConnectionState.REMOTE_CLOSING, ConnectionState.CLOSED):
            code = 1014 if self._engine.peer_said_1014 else int(event.code)
            return PeerClose(code=code, reason=event.reason or "")
        words = self._engine.verdict
        if words is None and self._deflate is not None:
            words = self._deflate.verdict
        if words is None:
            words = "invalid UTF-8" if event.code == 1007 else str(event.reason)
        return Failure(code=int(event.code), reason=words[:MAX_REASON_BYTES])

    # -- outbound --------------------------------------------------------------------------------

    def encode(
        self,
        message: str | bytes | bytearray | memoryview,
        *,
        final: bool = True,
        compress: bool | None = None,
    ) -> bytes:
        """One data frame: a whole message, or with ``final=False`` a piece that others follow.

        The frame must be sent, and in this order: with compression later ones build upon it.

        Args:
            compress: True or False for this message; None leaves it to `Deflate.threshold`. Only
                the first piece is asked. Without compression it says nothing.

        ValueError for text that UTF-8 cannot carry; nothing has changed then.
        """
        if self._deflate is not None:
            self._deflate.compress_next = compress
        return self._engine.encode(message, final)

    def encode_shared(self, message: str | bytes, size: int, shared: dict[object, bytes]) -> bytes:
        """`encode` for one message that many connections send: frames that serve several of them
        are kept in `shared`, by what their connections must have in common.

        Args:
            size: of the payload, bytes.
        """
        if self.plain:
            kind: object = ()
        else:
            kind = self._deflate.kind_of(size) if self._deflate is not None else None
        if kind is None or self._framer is not _FRAMERS[False]:
            return self.encode(message)  # a compressor's next words, or masked
        frame = shared.get(kind)
        if frame is None:
            frame = shared[kind] = self.encode(message) if kind else plain_frame(message)
        return frame

    def ping(self, payload: bytes) -> bytes:
        return self._engine.send(Ping(payload=payload))

    def pong(self, payload: bytes) -> bytes:
        # Not through the engine: where a Close came in the same read as the ping, the engine has
        # seen it already and refuses. Whether a pong is still due is the caller's to know.
        return bytes(self._framer.pong(payload))

    def close(self, code: int, reason: str) -> bytes:
        """The one Close frame; 1005 makes an empty one."""
        if code == 1005:
            return self._engine.send(CloseConnection(code=CloseReason.NO_STATUS_RCVD))
        return self._engine.send(CloseConnection(code=code, reason=reason))
