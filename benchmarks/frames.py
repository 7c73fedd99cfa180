"""The bytes the load sends and expects (RFC 6455 sections 4 and 5.2).

Lives here: handshakes and frames as constants, built once. Must never live here: anything that runs
while time is taken, or a parser: the load compares bytes and understands none.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import Final, Self

BINARY: Final = 0x2

_MASK: Final = b"\x37\xfa\x21\x3d"
"""One mask for every frame: unmasking costs a server the same whatever the four bytes are."""
_KEY: Final = b"dGhlIHNhbXBsZSBub25jZQ=="
"""One key for every handshake, RFC 6455's own: hashing costs a server the same whatever it is."""

ACCEPT: Final = base64.b64encode(
    hashlib.sha1(_KEY + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
)
UPGRADED: Final = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: %s\r\n\r\n" % ACCEPT
)
"""The right answer to every handshake of the load, for servers that parse none."""


def handshake(port: int) -> bytes:
    """The load's request; it offers no extension, so nobody compresses."""
    return (
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\n\r\n" % (port, _KEY)
    )


def frame(opcode: int, payload: bytes, *, mask: bytes | None = None) -> bytes:
    """One final frame (RFC 6455 section 5.2), masked if a `mask` of 4 bytes is given."""
    size = len(payload)
    flag = 0x80 if mask else 0
    head = bytes([0x80 | opcode])
    if size < 126:
        head += bytes([flag | size])
    elif size < 1 << 16:
        head += bytes([flag | 126]) + size.to_bytes(2, "big")
    else:
        head += bytes([flag | 127]) + size.to_bytes(8, "big")
    if mask is None:
        return head + payload
    key = int.from_bytes((mask * (size // 4 + 1))[:size], "big")
    return head + mask + (int.from_bytes(payload, "big") ^ key).to_bytes(size, "big")


@dataclass(frozen=True, kw_only=True, slots=True)
class Exchange:
    """The bytes of one message: as the load sends it, as the server must send it back."""

    request: bytes
    reply: bytes

    @classmethod
    def of(cls, *, size: int, unmasks: bool) -> Self:
        """A binary message of `size` bytes; `unmasks` as in `servers.Adapter`.

        The payload repeats every 251 bytes, a prime: a piece that is lost, doubled or misplaced
        by a buffer's length does not look like the piece that belongs there.
        """
        payload = (bytes(range(251)) * (size // 251 + 1))[:size]
        request = frame(BINARY, payload, mask=_MASK)
        return cls(request=request, reply=frame(BINARY, payload) if unmasks else request)
