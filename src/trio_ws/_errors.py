"""The error tree: every exception class of ours that a caller may catch.

Lives here: classes and the words they print. Must never live here: the decision which one to
raise (the I/O floor makes it), or anything that knows about trio, h11 or wsproto. The classes
that also are trio's own (`trio.EndOfChannel` and friends) are made where trio is known, in
`_endings`.

    WebSocketError
    |-- InvalidURL              the caller's URL cannot be one of a WebSocket   (also ValueError)
    |-- HandshakeError          the opening handshake failed: nothing was opened
    |   `-- Rejected            ... because the server answered with something else than 101
    `-- ConnectionClosed        an open connection has ended; `.close` says how
        `-- ConnectionLost      ... and no closing handshake took place
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._close import Close
    from ._response import Response

__all__ = [
    "ConnectionClosed",
    "ConnectionLost",
    "HandshakeError",
    "InvalidURL",
    "Rejected",
    "WebSocketError",
]


class WebSocketError(Exception):
    """Base class of everything that trio_ws raises about a peer or a connection."""


class InvalidURL(WebSocketError, ValueError):
    """The URL given by the caller is not a valid ``ws:`` or ``wss:`` URL (RFC 6455 section 3)."""


class HandshakeError(WebSocketError):
    """The opening handshake (RFC 6455 section 4) failed; there is no connection."""


class Rejected(HandshakeError):
    """The server answered the opening handshake with an ordinary HTTP response.

    Attributes:
        response: the `Response`, its body cut off at 64 KiB.
    """

    def __init__(self, response: Response) -> None:
        super().__init__(response)
        self.response = response

    def __str__(self) -> str:
        status = self.response.status
        known = status in HTTPStatus.__members__.values()
        return f"the server answered {status}" + (f" {HTTPStatus(status).phrase}" if known else "")


class ConnectionClosed(WebSocketError):
    """The connection has ended. Raised by every call that needs it open.

    It is one of trio's errors at the same time, the one that generic trio code expects from that
    call: `WebSocket` says which. What broke the connection, if anything did, is chained.

    Each raise makes a new exception object; all of one connection carry the same `Close`.

    Attributes:
        close: how it ended, the very object that ``WebSocket.closed`` returns.
    """

    def __init__(self, close: Close) -> None:
        super().__init__(close)
        self.close = close

    def __str__(self) -> str:
        return str(self.close)


class ConnectionLost(ConnectionClosed):
    """The connection has ended without a closing handshake (code 1006, RFC 6455 section 7.1.5)."""
