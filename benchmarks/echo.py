"""The suite `echo`: how fast do these servers send messages back, and at what cost?

Lives here: which driver a case needs, warm-up and window. Must never live here: the drivers
(`load`, `bulk`), processes, statistics.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Final

from benchmarks.bulk import Bulk
from benchmarks.connections import open_connections
from benchmarks.frames import Exchange
from benchmarks.load import MAX_STEP, Case, Load
from benchmarks.window import Server, Window

if TYPE_CHECKING:
    import socket

CASES: Final = ("1x1", "100x1", "16x16", "16 KiB 16x4", "1 MiB 1x4")
"""One MiB of payload is the most that every server accepts by default."""
WARM_UP: Final = 0.3


def driver(connections: list[socket.socket], exchange: Exchange, in_flight: int) -> Load | Bulk:
    """The load that these messages need: a socket buffer takes them whole, or it may not."""
    small = len(exchange.request) * in_flight <= MAX_STEP
    return (Load if small else Bulk)(connections, exchange, in_flight)


def measure(
    server: Server, connections: list[socket.socket], text: str, seconds: float
) -> dict[str, float]:
    """One case, one window; the connections are left open in `connections`.

    Raises:
        LoadError: the server did not do what an echo server does.
    """
    case = Case.parse(text)
    exchange = Exchange.of(size=case.size, unmasks=server.unmasks)
    open_connections(server.port, case.connections, into=connections)
    latencies: list[tuple[float, int]] = []
    with closing(driver(connections, exchange, case.in_flight)) as load:
        load.start()
        load.drive(WARM_UP, [])
        with Window(server) as window:
            messages = load.drive(seconds, latencies)
        load.finish()
    return window.values(messages, "message", "messages", latencies)
