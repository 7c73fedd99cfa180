"""RFC 6455 frames by hand: an encoder that can lie and a parser that forgives nothing.

Lives here: bytes <-> `Frame` values (section 5.2), and the rules a transcript must obey (section
5.4 to 5.6). Must never live here: I/O, wsproto (the kit has to be an independent witness of it).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

__all__ = [
    "BINARY",
    "CLOSE",
    "CONTINUATION",
    "PING",
    "PONG",
    "TEXT",
    "Frame",
    "FrameError",
    "FrameParser",
    "encode_frame",
    "parse_frames",
]

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

_NAMES = {
    CONTINUATION: "CONTINUATION",
    TEXT: "TEXT",
    BINARY: "BINARY",
    CLOSE: "CLOSE",
    PING: "PING",
    PONG: "PONG",
}


class FrameError(AssertionError):
    """The bytes under test are no valid sequence of frames. An AssertionError: the test failed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """One frame as it was on the wire, payload unmasked (RFC 6455 section 5.2).

    Attributes:
        opcode: 0 to 15; `TEXT`, `BINARY`, `CONTINUATION`, `CLOSE`, `PING`, `PONG` are named.
        payload: the application data, unmasked.
        fin: whether this is the last frame of its message.
        rsv: the three reserved bits as a number 0 to 7; 4 is RSV1.
        masked: whether a masking key was present.
    """

    opcode: int
    payload: bytes = b""
    fin: bool = True
    rsv: int = 0
    masked: bool = False

    @property
    def is_control(self) -> bool:
        """Whether this is a Close, Ping, Pong or an undefined control frame (section 5.5)."""
        return self.opcode >= 0x8

    @property
    def close_code(self) -> int:
        """The code of a Close frame, 1005 if it has none (section 7.1.5)."""
        return int.from_bytes(self.payload[:2], "big") if len(self.payload) >= 2 else 1005

    @property
    def close_reason(self) -> str:
        """The reason of a Close frame, "" if it has none."""
        return self.payload[2:].decode(errors="replace")

    def __str__(self) -> str:
        name = _NAMES.get(self.opcode, hex(self.opcode))
        shown = self.payload if len(self.payload) <= 40 else self.payload[:40] + b"..."
        bits = f"{'' if self.fin else ' fin=0'}{f' rsv={self.rsv}' if self.rsv else ''}"
        return f"<{name}{bits} {len(self.payload)} bytes {shown!r}>"


def encode_frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    masked: bool = False,
    masking_key: bytes | None = None,
    declared_length: int | None = None,
    length_size: int | None = None,
) -> bytes:
    """The bytes of one frame, valid or not: no combination is refused.

    Args:
        opcode: 0 to 15.
        payload: the application data, unmasked.
        fin: the FIN bit.
        rsv: the reserved bits, 0 to 7; 4 is RSV1.
        masked: mask the payload, as a client must and a server must not (section 5.3).
        masking_key: 4 bytes; random if None.
        declared_length: the length that the header claims, in bytes; the true one if None.
        length_size: 1, 2 or 8: size of the length field; the shortest that fits if None.
    """
    length = len(payload) if declared_length is None else declared_length
    if length_size is None:
        length_size = 1 if length < 126 else 2 if length < 1 << 16 else 8
    mask_bit = 0x80 if masked else 0
    head = bytes([(0x80 if fin else 0) | (rsv & 7) << 4 | opcode & 0xF])
    if length_size == 1:
        head += bytes([mask_bit | length & 0x7F])
    else:
        head += bytes([mask_bit | (126 if length_size == 2 else 127)])
        head += length.to_bytes(length_size, "big")
    if not masked:
        return head + payload
    key = os.urandom(4) if masking_key is None else masking_key
    return head + key + _mask(payload, key)


class FrameParser:
    """Incremental, strict parser of one direction of a connection.

    Bytes go in with `feed`, frames come out of `next_frame`. Anything that the sender of these
    bytes may not do is a `FrameError`: unknown opcodes, unexpected RSV bits, lengths not in their
    shortest form, fragmented or oversized control frames, fragments out of order, text that is no
    UTF-8, a wrong mask bit, and any byte at all behind a Close frame.

    Args:
        masked: what the mask bit of every frame has to be: True for bytes of a client, False for
            those of a server, None for either.
        allow_rsv: reserved bits that are allowed on the first frame of a data message (4 for
            permessage-deflate, whose payload is then not checked as text).

    Attributes:
        frames: every frame seen so far, in order.
        messages: every complete data message so far: str of text, bytes of binary messages.
    """

    def __init__(self, *, masked: bool | None, allow_rsv: int = 0) -> None:
        self._masked = masked
        self._allow_rsv = allow_rsv
        self._buffer = bytearray()
        self._message: list[Frame] = []
        self._closed = False
        self.frames: list[Frame] = []
        self.messages: list[str | bytes] = []

    @property
    def partial(self) -> bytes:
        """The bytes of a last frame that is not complete yet; b"" at a frame boundary."""
        return bytes(self._buffer)

    @property
    def in_message(self) -> bool:
        """Whether a fragmented message is open (a frame with FIN is still to come)."""
        return bool(self._message)

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Add what arrived. Raises FrameError for bytes behind a Close frame."""
        self._buffer += data
        self._refuse_after_close()

    def next_frame(self) -> Frame | None:
        """The next complete frame, or None if more bytes are needed. Raises FrameError."""
        header = self._header()
        if header is None:
            return None
        frame, length, offset = header
        masking_key = bytes(self._buffer[offset - 4 : offset]) if frame.masked else None
        if len(self._buffer) < offset + length:
            return None
        payload = bytes(self._buffer[offset : offset + length])
        del self._buffer[: offset + length]
        if masking_key is not None:
            payload = _mask(payload, masking_key)
        frame = replace(frame, payload=payload)
        self.frames.append(frame)
        self._account(frame)
        return frame

    def _header(self) -> tuple[Frame, int, int] | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        masked = bool(buffer[1] & 0x80)
        frame = Frame(
            opcode=buffer[0] & 0xF,
            fin=bool(buffer[0] & 0x80),
            rsv=buffer[0] >> 4 & 7,
            masked=masked,
        )
        length = buffer[1] & 0x7F
        size = {126: 2, 127: 8}.get(length, 0)
        self._check_header(frame, length)
        if len(buffer) < 2 + size + 4 * masked:
            return None
        if size:
            length = int.from_bytes(buffer[2 : 2 + size], "big")
            if length < (126 if size == 2 else 1 << 16) or length >= 1 << 63:
                raise FrameError(f"length {length} is not in its shortest form: {frame}")
        return frame, length, 2 + size + 4 * masked

    def _check_header(self, frame: Frame, length: int) -> None:
        if frame.opcode not in _NAMES:
            raise FrameError(f"opcode {frame.opcode:#x} is not defined")
        starts_message = frame.opcode in (TEXT, BINARY)
        if frame.rsv & ~(self._allow_rsv if starts_message else 0):
            raise FrameError(f"reserved bits are set: {frame}")
        if self._masked is not None and frame.masked != self._masked:
            raise FrameError(f"frame is {'' if frame.masked else 'not '}masked: {frame}")
        if frame.is_control and (not frame.fin or length > 125):
            raise FrameError(f"control frame is fragmented or too long: {frame}")
        if not frame.is_control and (frame.opcode == CONTINUATION) != bool(self._message):
            raise FrameError(f"fragment out of order: {frame}")

    def _account(self, frame: Frame) -> None:
        if frame.opcode == CLOSE:
            _check_close(frame)
            self._closed = True
            self._refuse_after_close()
        if frame.is_control:
            return
        self._message.append(frame)
        if not frame.fin:
            return
        first = self._message[0]
        data = b"".join(fragment.payload for fragment in self._message)
        self._message = []
        if first.opcode == TEXT and not first.rsv:
            try:
                self.messages.append(data.decode())
            except UnicodeDecodeError as exc:
                raise FrameError("text message is no valid UTF-8") from exc
        else:
            self.messages.append(data)

    def _refuse_after_close(self) -> None:
        if self._closed and self._buffer:
            raise FrameError(f"{len(self._buffer)} bytes follow the Close frame")


def parse_frames(
    data: bytes | bytearray, *, masked: bool | None, allow_rsv: int = 0
) -> tuple[list[Frame], bytes]:
    """Assert that `data` is a prefix of valid frames; return the whole ones and the rest.

    This is the invariant of a transcript: whatever was cancelled, what the peer got is whole
    frames and at most one torn frame at the very end. `FrameParser` tells the arguments, and what
    is refused with FrameError.
    """
    parser = FrameParser(masked=masked, allow_rsv=allow_rsv)
    parser.feed(data)
    while parser.next_frame() is not None:
        pass
    return parser.frames, parser.partial


def _check_close(frame: Frame) -> None:
    if len(frame.payload) == 1:
        raise FrameError("Close frame with a payload of one byte")
    try:
        frame.payload[2:].decode()
    except UnicodeDecodeError as exc:
        raise FrameError("close reason is no valid UTF-8") from exc
    code = frame.close_code
    if frame.payload and not (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999):
        raise FrameError(f"close code {code} must not be on the wire")


def _mask(payload: bytes, key: bytes) -> bytes:
    if not payload:
        return b""
    pad = (key * (len(payload) // 4 + 1))[: len(payload)]
    number = int.from_bytes(payload, "big") ^ int.from_bytes(pad, "big")
    return number.to_bytes(len(payload), "big")
