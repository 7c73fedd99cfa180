"""permessage-deflate at work (RFC 7692 section 7.2): one connection's two zlib streams.

Lives here: the wsproto extension that inflates what comes and compresses what goes. Must never live
here: negotiation (`_deflate`), limits on what is not compressed (`_protocol`).

The theory. A message's compressed bytes are a slice of one long DEFLATE stream, cut where that is
at a byte boundary behind an empty stored block; the four bytes every such block ends with are not
sent. The receiver puts them back. In a whole message they bring nothing to light and leave the
stream at a boundary; in a truncated one they are taken for something else. zlib does not say where
it stands, but an inflater that is fed an empty *final* block says `eof` at a boundary and nowhere
else; a copy is asked, which costs a microsecond. A peer may also end its stream (BFINAL) anywhere
and begin a new one.

What comes is inflated into the room the limit leaves and one byte more, never further. It is
inflated a read at a time, before its text is decoded: a message that is both too long and no UTF-8
fails with 1009 or 1007, as the reads fall.

wsproto shows a header again while its mask is incomplete, so headers only set state; control frames
set nothing but that they are one.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Self

from wsproto.extensions import Extension
from wsproto.frame_protocol import CloseReason, FrameDecoder, FrameProtocol, Opcode, RsvBits

from ._deflate import MIN_BITS, NAME

if TYPE_CHECKING:
    from ._deflate import Agreement, Deflate

_NO_RSV = RsvBits(False, False, False)
_RSV1 = RsvBits(True, False, False)

_TAIL = b"\x00\x00\xff\xff"
"""What every empty stored block ends with; section 7.2.1 takes it off."""

_FINAL_BLOCK = b"\x01\x00\x00\xff\xff"
"""An empty stored block with BFINAL set."""

MAX_RESTARTS = 64
"""Streams that may end within one frame. A peer that ends its stream does so once a message; each
end costs a new inflater and a copy of the bytes behind it, for as little as two bytes."""


class PerMessageDeflate(Extension):
    """Both directions of permessage-deflate as `agreement` says, for one connection.

    A direction's zlib stream exists from its first compressed message on; without context takeover
    it exists within a message only.

    Attributes:
        compress_next: whether to compress the next message: True, False, or None for
            `Deflate.threshold` to decide. Read at the first frame of each message.
        verdict: why an inbound frame was refused, None before.
    """

    name = NAME

    @classmethod
    def agreed(
        cls,
        agreement: Agreement | None,
        deflate: Deflate | None,
        *,
        client: bool,
        max_message: int,
    ) -> list[Self]:
        """A connection's extensions, as its handshake ended; none if either side wants none."""
        if agreement is None or deflate is None:
            return []
        return [cls(agreement, deflate, client=client, max_message=max_message)]

    def __init__(
        self, agreement: Agreement, deflate: Deflate, *, client: bool, max_message: int
    ) -> None:
        """
        Args:
            client: whether this end is the client.
            max_message: bytes; a message that inflates to more is refused with 1009.
        """
        ours = agreement.client_max_window_bits if client else agreement.server_max_window_bits
        theirs = agreement.server_max_window_bits if client else agreement.client_max_window_bits
        alone = (agreement.server_no_context_takeover, agreement.client_no_context_takeover)
        self._out_alone, self._in_alone = reversed(alone) if client else alone
        self._out_bits = ours
        # A larger window inflates the same; 8 bits are refused by some builds of zlib.
        self._in_bits = max(theirs, MIN_BITS)
        self._threshold = deflate.threshold
        self._level = deflate.level
        self._mem_level = deflate.mem_level
        self._max_message = max_message
        # inbound
        self._inflater: zlib._Decompress | None = None
        self._inflating = False  # the message in hand is compressed
        self._control = False  # the frame in hand is a control frame
        self._room = max_message
        self._restarts = 0
        self._ended = False  # the message in hand has just ended its stream
        # outbound
        self._compressor: zlib._Compress | None = None
        self._compressing = False
        self.compress_next: bool | None = None
        self.verdict: str | None = None

    def enabled(self) -> bool:
        return True

    def offer(self) -> bool:
        return False  # negotiated by `_deflate`, not by wsproto

    # -- inbound ---------------------------------------------------------------------------------

    def frame_inbound_header(
        self,
        proto: FrameDecoder | FrameProtocol,  # noqa: ARG002  wsproto's signature
        opcode: Opcode,
        rsv: RsvBits,
        payload_length: int,  # noqa: ARG002
    ) -> CloseReason | RsvBits:
        self._control = opcode >= 8
        if self._control:
            return _NO_RSV
        self._restarts = 0
        if opcode is Opcode.CONTINUATION:
            return _NO_RSV
        self._inflating = rsv.rsv1
        self._room = self._max_message
        self._ended = False
        return _RSV1

    def frame_inbound_payload_data(
        self,
        proto: FrameDecoder | FrameProtocol,  # noqa: ARG002
        data: bytes,
    ) -> bytes | CloseReason:
        if self._control or not self._inflating:
            return data
        return self._inflate(data)

    def frame_inbound_complete(
        self,
        proto: FrameDecoder | FrameProtocol,  # noqa: ARG002
        fin: bool,
    ) -> bytes | CloseReason | None:
        if self._control or not self._inflating or not fin:
            return None
        self._inflating = False
        # A stream that ended with the message's last byte needs no tail: section 7.2.3.4 has one
        # more byte there, but not every peer sends it.
        if not self._ended and not (self._inflate(_TAIL) == b"" and self._at_boundary()):
            return self._refuse("compressed data is truncated")
        if self._in_alone:
            self._inflater = None
        return None

    def _inflate(self, data: bytes) -> bytes | CloseReason:
        """Inflate the next bytes of the message in hand, into the room that is left for it."""
        pieces: list[bytes] = []
        while data:
            if self._inflater is None:
                self._inflater = zlib.decompressobj(-self._in_bits)
            try:
                piece = self._inflater.decompress(data, self._room + 1)
            except zlib.error:
                return self._refuse("compressed data is invalid")
            if len(piece) > self._room:
                self.verdict = f"message over {self._max_message} bytes"
                self._inflater = None
                return CloseReason.MESSAGE_TOO_BIG
            self._room -= len(piece)
            pieces.append(piece)
            self._ended = self._inflater.eof
            if not self._ended:
                break
            data = self._inflater.unused_data
            self._inflater = None
            self._restarts += 1
            if self._restarts > MAX_RESTARTS:
                return self._refuse("compressed data ends too often")
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _at_boundary(self) -> bool:
        if self._inflater is None:
            return False
        probe = self._inflater.copy()
        try:
            more = probe.decompress(_FINAL_BLOCK, 1)
        except zlib.error:
            return False
        return probe.eof and not more

    def release(self) -> None:
        """Nothing comes or goes any more: free the zlib streams."""
        self._inflater = self._compressor = None

    def _refuse(self, why: str) -> CloseReason:
        self.verdict = why
        self._inflater = None
        return CloseReason.INVALID_FRAME_PAYLOAD_DATA

    # -- outbound --------------------------------------------------------------------------------

    def frame_outbound(
        self,
        proto: FrameDecoder | FrameProtocol,  # noqa: ARG002
        opcode: Opcode,
        rsv: RsvBits,
        data: bytes,
        fin: bool,
    ) -> tuple[RsvBits, bytes]:
        """Compress one frame's payload. What is returned must be sent, in this order: the peer's
        inflater follows."""
        if opcode >= 8:
            return rsv, data
        first = opcode is not Opcode.CONTINUATION
        if first:
            self._compressing = self._wanted(len(data), whole=fin)
        if not self._compressing:
            return rsv, data
        compressed = self._compress(data, fin=fin)
        if first and fin and self._out_alone and len(compressed) >= len(data):
            return rsv, data  # nothing was gained, and no later message builds upon it
        return (RsvBits(True, rsv.rsv2, rsv.rsv3) if first else rsv), compressed

    def kind_of(self, size: int) -> tuple[int, ...] | None:
        """What another connection must have in common with this one for a whole message of `size`
        bytes to be the same frame on both: () if it is not compressed, None if nothing is enough,
        because the frame builds upon earlier ones."""
        self.compress_next = None
        if not self._wanted(size, whole=True):
            return ()
        if not self._out_alone:
            return None
        return self._out_bits, self._level, self._mem_level

    def _wanted(self, size: int, *, whole: bool) -> bool:
        if self._out_bits < MIN_BITS:  # zlib cannot; sending it as it is remains allowed
            return False
        if self.compress_next is not None:
            return self.compress_next
        return not whole or size >= self._threshold

    def _compress(self, data: bytes, *, fin: bool) -> bytes:
        compressor = self._compressor
        if compressor is None:
            compressor = zlib.compressobj(
                self._level, zlib.DEFLATED, -self._out_bits, self._mem_level
            )
        compressed = compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH)
        self._compressor = None if fin and self._out_alone else compressor
        return compressed[: -len(_TAIL)] if fin else compressed
