"""The suite `handshakes`: from accept to 101, how many in a second, and at what cost?

Lives here: how many are under way, the window. Must never live here: the handshake itself
(`connections`), processes, statistics.

The connections stay open until the window is over, so nobody pays for closing in it, no server
differs by how it closes, and no port waits in TIME_WAIT.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from benchmarks.connections import Unmeasurable, most_connections, open_connections
from benchmarks.window import Server, Window

if TYPE_CHECKING:
    import socket

CASES: Final = ("1 at a time", "16 at a time")
WARM_UP: Final = 100
"""Handshakes before the window."""
MOST: Final = 8000
"""Handshakes after which a window ends, however short it was."""


def at_once(text: str) -> int:
    """Read "16 at a time".

    Raises:
        ValueError: it is not of that form.
    """
    match = re.fullmatch(r"([1-9]\d*) at a time", text, re.ASCII)
    if match is None:
        raise ValueError(f"a case is '16 at a time', not {text!r}")
    return int(match[1])


def measure(
    server: Server, connections: list[socket.socket], text: str, seconds: float
) -> dict[str, float]:
    """One case, one window; what was opened is left in `connections`.

    Raises:
        LoadError: an answer was not a right 101.
        Unmeasurable: this process may not open enough connections.
    """
    parallel = at_once(text)
    most = min(MOST, most_connections() - WARM_UP)
    if most < WARM_UP:
        raise Unmeasurable("the limit of open files is too low (ulimit -Hn)")
    open_connections(server.port, WARM_UP, into=connections, at_once=parallel)
    with Window(server) as window:
        took = open_connections(
            server.port, most, into=connections, at_once=parallel, seconds=seconds
        )
    return window.values(len(took), "handshake", "handshakes", [(each, 1) for each in took])
