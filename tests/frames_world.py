"""What the tests of the frame machine share, with compression and without: frames in, values out.

Lives here: frames for either end, and what an end makes of them. Must never live here: a test.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from wsproto.events import Ping, Pong

from trio_ws._protocol import Failure, PeerClose, Protocol
from trio_ws.testing import encode_frame

Value: TypeAlias = "str | bytes | tuple[str, bytes] | PeerClose | Failure"


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, client: bool = False
) -> bytes:
    """A frame for this end: masked for a server, with a fixed key; not masked for a client."""
    return encode_frame(
        opcode, payload, fin=fin, rsv=rsv, masked=not client, masking_key=b"\1\2\3\4"
    )


def settle(end: Protocol) -> list[Value]:
    """Parse until nothing is left; messages and control values, each in their order."""
    values: list[Value] = []
    while True:
        for event in end.parse():
            if isinstance(event, Ping):
                values.append(("ping", bytes(event.payload)))
            elif isinstance(event, Pong):
                values.append(("pong", bytes(event.payload)))
            else:
                values.append(event)
        while end.inbox.messages:
            values.append(end.inbox.pop())
        if not end.unparsed:
            return values


def values_of(end: Protocol, pieces: Iterable[bytes]) -> list[Value]:
    """Everything that these pieces mean, settled after each."""
    values: list[Value] = []
    for piece in pieces:
        end.feed(piece)
        values += settle(end)
    return values


def failure(end: Protocol, *pieces: bytes) -> Failure:
    """The one thing these pieces mean: a fault of the peer's."""
    (value,) = values_of(end, pieces)
    assert isinstance(value, Failure), value
    return value
