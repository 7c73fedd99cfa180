"""The error tree: what catches what, and what each error prints.

Lives here: `_errors` alone. Must never live here: which error a call raises (test_endings,
test_websocket).
"""

from __future__ import annotations

import pytest

from trio_ws._close import Close
from trio_ws._errors import (
    ConnectionClosed,
    ConnectionLost,
    HandshakeError,
    InvalidURL,
    Rejected,
    WebSocketError,
)
from trio_ws._response import Response

BYE = Close(code=1000, reason="bye", initiator="peer")


@pytest.mark.parametrize(
    "error",
    [
        InvalidURL("no host"),
        HandshakeError("no answer"),
        Rejected(Response(403)),
        ConnectionClosed(BYE),
        ConnectionLost(BYE),
    ],
)
def test_one_base_class_catches_all(error: Exception) -> None:
    """Every error of ours is a `WebSocketError`."""
    assert isinstance(error, WebSocketError)


def test_an_invalid_url_is_a_value_error() -> None:
    """Code that knows nothing of us catches a bad URL as the bad value it is."""
    assert isinstance(InvalidURL("no host"), ValueError)


def test_a_rejection_is_a_handshake_error_that_has_the_response() -> None:
    """`Rejected` keeps the server's answer and prints its status, not its body."""
    response = Response(403, body=b"go away")
    error = Rejected(response)
    assert isinstance(error, HandshakeError)
    assert error.response is response
    assert "403" in str(error)
    assert "go away" not in str(error)


def test_a_handshake_that_failed_is_no_connection_that_closed() -> None:
    """`except ConnectionClosed` never catches a connection that was not opened."""
    assert not issubclass(HandshakeError, ConnectionClosed)
    assert not issubclass(ConnectionClosed, HandshakeError)


@pytest.mark.parametrize("kind", [ConnectionClosed, ConnectionLost])
def test_an_ended_connection_tells_how(kind: type[ConnectionClosed]) -> None:
    """`.close` is the very value, and the error prints what the value prints."""
    error = kind(BYE)
    assert error.close is BYE
    assert str(error) == str(BYE)
    assert isinstance(error, ConnectionClosed)
