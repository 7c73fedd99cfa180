"""The exceptions of an ended connection that are trio's as well as ours.

Lives here: the classes and the one function that picks among them. Must never live here: state.
Generic trio code catches `trio.EndOfChannel`, `BrokenResourceError`, `ClosedResourceError`; our own
users catch `ConnectionClosed`; each object raised is both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ._errors import ConnectionClosed, ConnectionLost

if TYPE_CHECKING:
    from ._close import Close

QUIET_CODES = frozenset({1000, 1001, 1005})
"""Codes with which a peer ends a conversation in good order: `async for` ends without a sound."""


class ConnectionEnded(ConnectionClosed, trio.EndOfChannel):
    """The peer has said all it had to say (codes 1000, 1001, 1005)."""


class ConnectionBroken(ConnectionClosed, trio.BrokenResourceError):
    """The connection ended otherwise than in good order, or cannot be sent on any more."""


class ConnectionBrokenOff(ConnectionLost, trio.BrokenResourceError):
    """The connection ended without a closing handshake."""


class ConnectionClosedHere(ConnectionClosed, trio.ClosedResourceError):
    """The application itself has closed this connection."""


class ConnectionLostHere(ConnectionLost, trio.ClosedResourceError):
    """The application itself has closed this connection, and the peer never answered."""


def ending(close: Close, *, own: bool, sending: bool) -> ConnectionClosed:
    """A new exception object that tells `close` to whom called.

    Args:
        own: the application has called `close` or `aclose`.
        sending: the call was `send` or `ping`, not `receive`.
    """
    lost = close.code == 1006
    if own:
        return ConnectionLostHere(close) if lost else ConnectionClosedHere(close)
    if lost:
        return ConnectionBrokenOff(close)
    if not sending and close.code in QUIET_CODES:
        return ConnectionEnded(close)
    return ConnectionBroken(close)
