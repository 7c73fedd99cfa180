"""The bytes the load sends and expects (RFC 6455 section 5.2).

Lives here: frames as constants, built once. Must never live here: anything that runs while time is
taken, or a parser: the load compares bytes and understands none.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import cycle
from typing import Final, Self

TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8

_MASK: Final = b"\x37\xfa\x21\x3d"
"""One mask for every frame: unmasking costs a server the same whatever the four bytes are."""


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
    return head + mask + bytes(a ^ b for a, b in zip(payload, cycle(mask), strict=False))


def close_frame() -> bytes:
    """A client's Close with code 1000."""
    return frame(CLOSE, (1000).to_bytes(2, "big"), mask=_MASK)


@dataclass(frozen=True, kw_only=True, slots=True)
class Exchange:
    """The bytes of one message: as the load sends it, as the server must send it back."""

    request: bytes
    reply: bytes

    @classmethod
    def of(cls, *, size: int, opcode: int, unmasks: bool) -> Self:
        """A message of `size` ASCII characters; `unmasks` as in `servers.Adapter`."""
        payload = bytes(
            byte for byte, _ in zip(cycle(range(0x20, 0x7F)), range(size), strict=False)
        )
        request = frame(opcode, payload, mask=_MASK)
        return cls(request=request, reply=frame(opcode, payload) if unmasks else request)
