"""Which exception tells an end: ours and trio's at once.

Lives here: `_endings` alone. Must never live here: connections.
"""

from __future__ import annotations

import pytest
import trio

from trio_ws._close import Close
from trio_ws._endings import ending
from trio_ws._errors import ConnectionClosed, ConnectionLost

QUIET = Close(code=1000, initiator="peer")
LOUD = Close(code=1011, initiator="peer")
LOST = Close(code=1006, initiator="nobody")

END, BROKEN, CLOSED = trio.EndOfChannel, trio.BrokenResourceError, trio.ClosedResourceError


@pytest.mark.parametrize(
    ("close", "own", "sending", "kind"),
    [
        (QUIET, False, False, END),
        (LOUD, False, False, BROKEN),
        (LOST, False, False, BROKEN),
        (QUIET, False, True, BROKEN),
        (LOUD, False, True, BROKEN),
        (LOST, False, True, BROKEN),
        (QUIET, True, False, CLOSED),
        (LOUD, True, False, CLOSED),
        (LOST, True, False, CLOSED),
        (QUIET, True, True, CLOSED),
        (LOUD, True, True, CLOSED),
        (LOST, True, True, CLOSED),
    ],
)
def test_an_end_is_what_generic_trio_code_expects(
    close: Close, own: bool, sending: bool, kind: type[Exception]
) -> None:
    """Exactly one of trio's three kinds, and always a `ConnectionClosed`; lost only for 1006."""
    error = ending(close, own=own, sending=sending)
    assert [each for each in (END, BROKEN, CLOSED) if isinstance(error, each)] == [kind]
    assert isinstance(error, ConnectionClosed)
    assert isinstance(error, ConnectionLost) == (close is LOST)
    assert error.close is close
    assert str(error) == str(close)


@pytest.mark.parametrize("initiator", ["peer", "local"])
@pytest.mark.parametrize("code", [1000, 1001, 1005])
def test_three_codes_end_a_loop_quietly(code: int, initiator: str) -> None:
    """1000, 1001 and 1005 are good order, whoever said so first."""
    close = Close(code=code, initiator="peer" if initiator == "peer" else "local")
    assert isinstance(ending(close, own=False, sending=False), END)


@pytest.mark.parametrize("code", [1002, 1003, 1007, 1008, 1009, 1011, 1012, 1013, 1014, 3000, 4999])
def test_every_other_code_is_loud(code: int) -> None:
    """Any other code breaks a loop, so that nobody takes it for the end of the data."""
    close = Close(code=code, initiator="peer")
    assert isinstance(ending(close, own=False, sending=False), BROKEN)


def test_each_raise_is_a_new_object() -> None:
    """Two tasks never share a traceback."""
    first, second = (ending(QUIET, own=False, sending=False) for _ in range(2))
    assert first is not second
    assert first.close is second.close
