"""The frame machine of one connection: bytes in, messages and control values out; no I/O, no trio.

Lives here: wsproto's `Connection` behind the one seam we use of it (`receive_data`, `events`,
`send`, `state`), the limits on what a peer may send, and the reassembly of messages.
Must never live here: sockets, clocks, the decision when to close.

The theory. wsproto reports a protocol error as a `CloseConnection` event whose state has not moved:
that is a `Failure`, the Close frame is ours to send, and nothing behind it is parsed. It yields one
event per frame *piece*; a message is gathered in one buffer, so that a peer which dribbles bytes
costs bytes and not objects. Limits sit in an extension, because an extension sees every header
before its payload: a frame that declares too much is refused before a byte of it is kept.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

from wsproto.connection import CLIENT, SERVER, Connection, ConnectionState
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage
from wsproto.extensions import Extension
from wsproto.frame_protocol import CloseReason, FrameDecoder, FrameProtocol, Opcode, RsvBits

from ._close import MAX_REASON_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._limits import Limits

MAX_EVENTS = 64
"""Events parsed in one go; between two goes other tasks run (fairness under a flood)."""

_NO_RSV = RsvBits(False, False, False)
_BAD_GATEWAY = (1014).to_bytes(2, "big")
_STAND_IN = (1013).to_bytes(2, "big")
_FRAMERS = {client: FrameProtocol(client, []) for client in (False, True)}

_OBJECT = 64
"""What an empty `str` or `bytes` and its place in a deque take, about: messages of no bytes must
fill the read-ahead, too."""


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
    """Holds a peer to the limits, frame header by frame header. Placed behind every other
    extension, so that it counts what the application will get."""

    name = "limits"

    def __init__(self, max_message: int, max_fragments: int | None) -> None:
        self._max_message = max_message
        self._max_fragments = max_fragments
        self._total = 0
        self._frames = 0
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
        rsv: RsvBits,  # noqa: ARG002
        payload_length: int,
    ) -> CloseReason | RsvBits:
        # Nothing may be counted here: a header that arrives in pieces is shown here at each piece.
        self._opcode, self._declared = opcode, payload_length
        if opcode >= 8:  # control frames may stand between fragments and never count
            return _NO_RSV
        if opcode is not Opcode.CONTINUATION:
            self._frames = self._total = 0
        if self._total + payload_length > self._max_message:
            self.verdict = f"message over {self._max_message} bytes"
            return CloseReason.MESSAGE_TOO_BIG
        if self._max_fragments is not None and self._frames >= self._max_fragments:
            self.verdict = f"message in over {self._max_fragments} frames"
            return CloseReason.MESSAGE_TOO_BIG
        return _NO_RSV

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
        fin: bool,  # noqa: ARG002
    ) -> bytes | CloseReason | None:
        if self._opcode < 8:
            self._frames += 1
            self._total += self._declared
        return None


class Protocol:
    """One connection's frames, both directions.

    Attributes:
        messages: complete messages not yet taken, oldest first.
        waiting: an upper bound of the bytes they take in memory.
        received: messages that have arrived whole so far.
        unparsed: bytes have arrived that `parse` has not looked at.
        discarding: drop data messages instead of keeping them (we have closed).
    """

    __slots__ = (
        "_engine",
        "_events",
        "_framer",
        "_guard",
        "_partial",
        "_partial_is_text",
        "discarding",
        "messages",
        "over",
        "received",
        "unparsed",
        "waiting",
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
        self._engine = Connection(
            CLIENT if client else SERVER, [*extensions, self._guard], trailing_data
        )
        self._events = self._engine.events()
        self._framer = _FRAMERS[client]
        self._partial: BytesIO | None = None
        self._partial_is_text = False
        self.messages: deque[str | bytes] = deque()
        self.waiting = 0
        self.unparsed = bool(trailing_data)
        self.discarding = False
        self.over = False
        self.received = 0

    # -- inbound ---------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Take in bytes from the peer, any number; `parse` looks at them."""
        if not self.over:
            self._engine.receive_data(data)
            self.unparsed = True

    def parse(self) -> list[Ping | Pong | PeerClose | Failure]:
        """Turn what arrived into messages (kept in `messages`) and control values (returned).

        At most `MAX_EVENTS` events a call; `unparsed` then stays true. `PeerClose` and `Failure`
        are final: nothing behind them is parsed.
        """
        control: list[Ping | Pong | PeerClose | Failure] = []
        if self.over:
            return control
        events = self._events
        for _ in range(MAX_EVENTS):
            event = next(events, None)
            kind = type(event)
            if kind is TextMessage or kind is BytesMessage:
                self._gather(event)  # type: ignore[arg-type]
            elif event is None:
                self._events = self._engine.events()
                self.unparsed = False
                break
            elif kind is CloseConnection:
                control.append(self._final(event))  # type: ignore[arg-type]
                break
            else:
                control.append(event)  # type: ignore[arg-type]
        return control

    def _gather(self, event: TextMessage | BytesMessage) -> None:
        message: str | bytes
        if event.message_finished and self._partial is None:
            message = event.data if isinstance(event.data, str) else bytes(event.data)
        else:
            if self._partial is None:
                self._partial = BytesIO()
                self._partial_is_text = type(event) is TextMessage
            piece = event.data
            self._partial.write(piece.encode() if isinstance(piece, str) else piece)
            if not event.message_finished:
                return
            gathered, self._partial = self._partial, None
            message = (
                str(gathered.getbuffer(), "utf-8") if self._partial_is_text else gathered.getvalue()
            )
        self.received += 1
        if not self.discarding:
            self.messages.append(message)
            self.waiting += _size(message)

    def _final(self, event: CloseConnection) -> PeerClose | Failure:
        self.over = True
        self.unparsed = False
        self._partial = None
        if self._engine.state in (ConnectionState.REMOTE_CLOSING, ConnectionState.CLOSED):
            code = 1014 if self._guard.peer_said_1014 else int(event.code)
            return PeerClose(code=code, reason=event.reason or "")
        words = self._guard.verdict
        if words is None:
            words = "invalid UTF-8" if event.code == 1007 else str(event.reason)
        return Failure(code=int(event.code), reason=words[:MAX_REASON_BYTES])

    def pop(self) -> str | bytes:
        """The oldest complete message."""
        message = self.messages.popleft()
        self.waiting -= _size(message)
        return message

    def discard(self) -> None:
        """We have closed: drop the messages that nobody has received, and all that follow."""
        self.discarding = True
        self.messages.clear()
        self.waiting = 0

    # -- outbound --------------------------------------------------------------------------------

    def encode(self, message: str | bytes | bytearray | memoryview) -> bytes:
        """One whole data frame. ValueError for text that UTF-8 cannot carry; nothing has changed
        then."""
        if isinstance(message, str):
            return self._engine.send(TextMessage(data=message))
        return self._engine.send(BytesMessage(data=message))  # type: ignore[arg-type]

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


def _size(message: str | bytes) -> int:
    if isinstance(message, str) and not message.isascii():
        return 4 * len(message) + _OBJECT
    return len(message) + _OBJECT
