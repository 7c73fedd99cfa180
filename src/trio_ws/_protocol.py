"""The frame machine of one connection: bytes in, messages and control values out; no I/O, no trio.

Lives here: wsproto's `Connection` behind the one seam we use of it (`receive_data`, `events`,
`send`, `state`), and the limits on what a peer may send.
Must never live here: sockets, clocks, the decision when to close.

The theory. wsproto reports a protocol error as a `CloseConnection` event whose state has not moved:
that is a `Failure`, the Close frame is ours to send, and nothing behind it is parsed. It yields one
event per frame *piece*; `_inbox` puts the pieces together. Limits sit in an extension, because an
extension sees every header before its payload: a frame that declares too much is refused before a
byte of it is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from wsproto.connection import CLIENT, SERVER, Connection, ConnectionState
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage
from wsproto.extensions import Extension
from wsproto.frame_protocol import CloseReason, FrameDecoder, FrameProtocol, Opcode, RsvBits

from ._close import MAX_REASON_BYTES
from ._inbox import Inbox
from ._permessage import PerMessageDeflate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from wsproto.events import Event

    from ._limits import Limits

MAX_EVENTS = 64
"""Events parsed in one go; between two goes other tasks run (fairness under a flood)."""

_NO_RSV = RsvBits(False, False, False)
_BAD_GATEWAY = (1014).to_bytes(2, "big")
_STAND_IN = (1013).to_bytes(2, "big")
# What a compressed message may take on the wire beyond `max_message`. Where compression fails, zlib
# adds an eighth and a few bytes; others, and flushes in between, get twice that.
_DEFLATE_SHARE = 4
_DEFLATE_SLACK = 1024
_DEFLATE_SLACK_PER_FRAME = 64

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


class Guard(Extension):
    """Holds a peer to the limits, frame header by frame header.

    What a compressed message inflates to is counted where it is inflated, by `PerMessageDeflate`.
    Here its frames are held to what `max_message` bytes may take when compressed, so that a length
    is refused before its payload, compressed or not. Placed behind every other extension.
    """

    name = "limits"

    def __init__(self, max_message: int, max_fragments: int | None) -> None:
        self._max_message = max_message
        self._max_fragments = max_fragments
        self._total = 0
        self._frames = 0
        self._compressed = False
        self._open = False
        self._opcode = Opcode.CONTINUATION
        self._declared = 0
        self.peer_said_1014 = False
        self.verdict: str | None = None

    def enabled(self) -> bool:
        return True

    def offer(self) -> bool:
        return False  # never negotiated

    def frame_inbound_header(
        self,
        proto: FrameDecoder | FrameProtocol,  # noqa: ARG002  wsproto's signature
        opcode: Opcode,
        rsv: RsvBits,
        payload_length: int,
    ) -> CloseReason | RsvBits:
        # Nothing may be counted here: a header that arrives in pieces is shown here at each piece.
        self._opcode, self._declared = opcode, payload_length
        if opcode >= 8:  # control frames may stand between fragments and never count
            return _NO_RSV
        if (opcode is Opcode.CONTINUATION) is not self._open:
            # The engine would say so behind the payload, after it was inflated or failed to.
            self.verdict = f"{opcode.name.lower()} frame out of order"
            return CloseReason.PROTOCOL_ERROR
        if not self._open:
            self._frames = self._total = 0
            self._compressed = rsv.rsv1
        if self._total + payload_length > self._bound():
            self.verdict = f"message over {self._max_message} bytes"
            return CloseReason.MESSAGE_TOO_BIG
        if self._max_fragments is not None and self._frames >= self._max_fragments:
            self.verdict = f"message in over {self._max_fragments} frames"
            return CloseReason.MESSAGE_TOO_BIG
        return _NO_RSV

    def _bound(self) -> int:
        bound = self._max_message
        if self._compressed:
            bound += bound // _DEFLATE_SHARE + _DEFLATE_SLACK
            bound += _DEFLATE_SLACK_PER_FRAME * self._frames
        return bound

    def frame_inbound_payload_data(
        self,
        proto: FrameDecoder | FrameProtocol,  # noqa: ARG002
        data: bytes,
    ) -> bytes | CloseReason:
        # 1014 is registered since RFC 6455 was written and a peer may send it; wsproto refuses it.
        if self._opcode is Opcode.CLOSE and data[:2] == _BAD_GATEWAY:
            self.peer_said_1014 = True
            return _STAND_IN + data[2:]
        return data

    def frame_inbound_complete(
        self,
        proto: FrameDecoder | FrameProtocol,  # noqa: ARG002
        fin: bool,
    ) -> bytes | CloseReason | None:
        if self._opcode < 8:
            self._open = not fin
            self._frames += 1
            self._total += self._declared
        return None


def plain_frame(message: str | bytes) -> bytes:
    """A whole message as a server sends it uncompressed; ValueError as `Protocol.encode`."""
    return bytes(_FRAMERS[False].send_data(message))


class Protocol:
    """One connection's frames, both directions.

    Attributes:
        inbox: the messages that have arrived.
        plain: a message is the same frame here as on any other plain connection.
        unparsed: bytes have arrived that `parse` has not looked at.
        over: the last word has been said, nothing more is parsed.
    """

    __slots__ = (
        "_deflate",
        "_engine",
        "_events",
        "_framer",
        "_guard",
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
        self._guard = Guard(limits.max_message, limits.max_fragments)
        self._deflate = next((e for e in extensions if isinstance(e, PerMessageDeflate)), None)
        self._engine = Connection(
            CLIENT if client else SERVER, [*extensions, self._guard], trailing_data
        )
        self._events: Iterator[Event] | None = None
        self._framer = _FRAMERS[client]
        self.plain = not client and self._deflate is None
        self.inbox = Inbox()
        self.unparsed = bool(trailing_data)
        self.over = False

    # -- inbound ---------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Take in bytes from the peer, any number; `parse` looks at them."""
        if not self.over:
            self._engine.receive_data(data)
            self.unparsed = True

    def parse(self) -> list[Ping | Pong | PeerClose | Failure]:
        """Turn what arrived into messages (kept in `inbox`) and control values (returned).

        At most `MAX_EVENTS` events a call; `unparsed` then stays true. `PeerClose` and `Failure`
        are final: nothing behind them is parsed.
        """
        control: list[Ping | Pong | PeerClose | Failure] = []
        if self.over:
            return control
        events = self._events = self._events or self._engine.events()
        for _ in range(MAX_EVENTS):
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
            code = 1014 if self._guard.peer_said_1014 else int(event.code)
            return PeerClose(code=code, reason=event.reason or "")
        words = self._guard.verdict
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
        if isinstance(message, str):
            return self._engine.send(TextMessage(data=message, message_finished=final))
        data: bytes = message  # type: ignore[assignment]  # the engine takes any buffer
        return self._engine.send(BytesMessage(data=data, message_finished=final))

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
