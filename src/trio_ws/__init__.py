"""WebSockets (RFC 6455) for trio.

Lives here: the public names, flat, in reading order. Must never live here: code.
"""

from __future__ import annotations

from ._close import Close, CloseCode
from ._errors import (
    ConnectionClosed,
    ConnectionLost,
    HandshakeError,
    InvalidURL,
    Rejected,
    WebSocketError,
)
from ._limits import Limits

__all__ = [
    # values
    "Close",
    "CloseCode",
    "Limits",
    # errors
    "WebSocketError",
    "HandshakeError",
    "Rejected",
    "InvalidURL",
    "ConnectionClosed",
    "ConnectionLost",
]
