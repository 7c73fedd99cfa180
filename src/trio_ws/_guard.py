"""The limits on what a peer may send, as wsproto sees them: an extension that is always on.

Lives here: what one message may be, in bytes and in frames, judged header by header.
Must never live here: what a message inflates to (`_permessage`), what follows from a refusal.

The compiled engine holds a peer to the same limits in its own code; tests hold the two together.
"""

from __future__ import annotations

from wsproto.extensions import Extension
from wsproto.frame_protocol import CloseReason, FrameDecoder, FrameProtocol, Opcode, RsvBits

_NO_RSV = RsvBits(False, False, False)
_BAD_GATEWAY = (1014).to_bytes(2, "big")
_STAND_IN = (1013).to_bytes(2, "big")
# What a compressed message may take on the wire beyond `max_message`. Where compression fails, zlib
# adds an eighth and a few bytes; others, and flushes in between, get twice that.
_DEFLATE_SHARE = 4
_DEFLATE_SLACK = 1024
_DEFLATE_SLACK_PER_FRAME = 64


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
