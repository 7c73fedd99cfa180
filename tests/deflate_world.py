"""What the tests of compressed messages share: one end that has agreed, and zlib as its judge.

Lives here: these. Must never live here: a test, what plain messages need too (frames_world).
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from trio_ws._deflate import Agreement, Deflate
from trio_ws._limits import Limits
from trio_ws._permessage import PerMessageDeflate
from trio_ws._protocol import Protocol
from trio_ws.testing import CONTINUATION, TEXT, Frame, parse_frames

from .frames_world import frame

TAIL = b"\x00\x00\xff\xff"

RSV1 = 4

KIB, MIB = 1 << 10, 1 << 20
EAGER = Deflate(threshold=0)


def machine(
    *, client: bool = False, agreement: Agreement | None = None, deflate: Deflate = EAGER,
    max_message: int = MIB, max_fragments: int | None = 4096,
) -> Protocol:  # fmt: skip
    """One end, with compression agreed upon."""
    extension = PerMessageDeflate(
        agreement or Agreement(), deflate, client=client, max_message=max_message
    )
    limits = Limits(max_message=max_message, max_fragments=max_fragments)
    return Protocol(client=client, limits=limits, extensions=[extension])


def deflated(data: bytes, level: int = 6) -> bytes:
    """One compressed message with no context (section 7.2.1), by zlib alone."""
    compressor = zlib.compressobj(level, zlib.DEFLATED, -15)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def in_frames(
    payloads: Sequence[bytes], opcode: int = TEXT, *, client: bool = False
) -> list[bytes]:
    """One compressed message as frames with these payloads."""
    last = len(payloads) - 1
    return [
        frame(
            CONTINUATION if at else opcode,
            payload,
            fin=at == last,
            rsv=0 if at else RSV1,
            client=client,
        )
        for at, payload in enumerate(payloads)
    ]


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


class Reference:
    """The other side of a connection by zlib alone: what section 7.2 says, and nothing clever.

    `bits` and `alone` (no context takeover) are those of the direction it is used for.
    """

    def __init__(self, bits: int = 15, *, alone: bool = False) -> None:
        self._bits = bits
        self._alone = alone
        self._inflater = zlib.decompressobj(-bits)
        self._compressor = zlib.compressobj(9, zlib.DEFLATED, -bits)

    def inflate(self, payload: bytes) -> bytes:
        if self._alone:
            self._inflater = zlib.decompressobj(-self._bits)
        data = self._inflater.decompress(payload + TAIL)
        assert not self._inflater.eof
        return data

    def deflate(self, data: bytes) -> bytes:
        if self._alone:
            self._compressor = zlib.compressobj(9, zlib.DEFLATED, -self._bits)
        flushed = self._compressor.compress(data) + self._compressor.flush(zlib.Z_SYNC_FLUSH)
        return flushed[:-4] if flushed else b"\0"


def sent_frames(data: bytes, *, client: bool = False) -> list[Frame]:
    """What this end has sent, as frames; strict."""
    frames, rest = parse_frames(data, masked=client, allow_rsv=RSV1)
    assert rest == b""
    return frames


def sent_frame(data: bytes, *, client: bool = False) -> Frame:
    (sent,) = sent_frames(data, client=client)
    return sent


HELLO = bytes.fromhex("f248cdc9c90700")
FINAL = zlib.compress(b"", wbits=-15)
