"""The suites `idle` and `scale`: what an open connection costs, and what it makes others cost.

Lives here: opening many connections, memory before and after, a few that talk among them.
Must never live here: the driver (`load`), processes, statistics.

Theory of the memory. Before it is looked at for the first time there is a warm-up of connections
that stay open: they have filled the allocators' pools and imported what is imported late. Every
connection, warm-up or not, has echoed one message: a connection that never spoke is rare, and one
that keeps the buffers of its last message is what this is about. Then all are left alone for
`SETTLE` seconds. The kernel's own buffers are not counted: they are the same for every server.
"""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING, Final

from benchmarks.connections import (
    LoadError,
    Unmeasurable,
    most_connections,
    open_connections,
)
from benchmarks.frames import Exchange
from benchmarks.load import SIZE, Load
from benchmarks.window import Server, Window

if TYPE_CHECKING:
    import socket

IDLE: Final = ("1000",)
SCALE: Final = ("1", "100", "1000", "10000")
WARM_UP: Final = 0.3
SETTLE: Final = 0.3
TALKING: Final = 100
"""Connections that talk among those that are idle, at most."""
BEFORE: Final = 100
"""Connections before the memory is looked at for the first time."""
MAX_AGE: Final = 18.0
"""Seconds within which all is over: keepalive pings come after 20, and the load knows none."""


def count(text: str) -> int:
    """Read a number of connections.

    Raises:
        ValueError: it is none.
    """
    if not (text.isascii() and text.isdecimal() and int(text)):
        raise ValueError(f"a case is a number of connections, not {text!r}")
    return int(text)


def needs(text: str) -> str | None:
    """Why this machine cannot hold so many connections; None if it can."""
    most = most_connections() - BEFORE
    if count(text) <= most:
        return None
    return f"the limit of open files allows {most} connections (ulimit -Hn)"


def _greet(connections: list[socket.socket], exchange: Exchange) -> None:
    """Have each echo one message."""
    with closing(Load(connections, exchange, 1)) as load:
        load.start()
        load.finish()


def _populate(
    server: Server, connections: list[socket.socket], before: int, after: int
) -> dict[str, float]:
    """Open `before` connections, then `after` more; bytes of the server for each of the latter."""
    exchange = Exchange.of(size=SIZE, unmasks=server.unmasks)
    sizes: list[int] = []
    for number in (before, after):
        opened = len(connections)
        open_connections(server.port, number, into=connections)
        _greet(connections[opened:], exchange)
        time.sleep(SETTLE)
        sizes.append(server.private_bytes())
    return {"bytes/connection": (sizes[1] - sizes[0]) / after}


def _check_age(began: float) -> None:
    if (age := time.monotonic() - began) > MAX_AGE:
        raise Unmeasurable(f"it took {age:.0f} seconds, and keepalive pings come after 20")


def idle(server: Server, connections: list[socket.socket], text: str, _: float) -> dict[str, float]:
    """Memory of `text` idle connections.

    Raises:
        LoadError: one of them did not echo its message.
    """
    return _populate(server, connections, BEFORE, count(text))


def scale(
    server: Server, connections: list[socket.socket], text: str, seconds: float
) -> dict[str, float]:
    """Memory of `text` connections, and then what a message costs on `TALKING` of them.

    Raises:
        LoadError: a reply was not what was sent.
        Unmeasurable: it all took longer than `MAX_AGE` seconds.
    """
    began = time.monotonic()
    try:
        values = _scale(server, connections, count(text), seconds)
    except LoadError:
        _check_age(began)  # what was no reply may have been a ping
        raise
    _check_age(began)
    return values


def _scale(
    server: Server, connections: list[socket.socket], number: int, seconds: float
) -> dict[str, float]:
    values: dict[str, float] = {}
    if number < BEFORE:
        open_connections(server.port, number, into=connections)
    else:
        values = _populate(server, connections, number // 10, number - number // 10)
    exchange = Exchange.of(size=SIZE, unmasks=server.unmasks)
    latencies: list[tuple[float, int]] = []
    talking = connections[:: -(-number // TALKING)]
    with closing(Load(talking, exchange, 1)) as load:
        load.start()
        load.drive(WARM_UP, [])
        with Window(server) as window:
            messages = load.drive(seconds, latencies)
        load.finish()
    return values | window.values(messages, "message", "messages", latencies)
