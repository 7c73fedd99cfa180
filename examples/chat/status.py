"""What an operator looks at: the numbers of every process of the chat, each second, as events.

Lives here: gathering the numbers, carrying them to other processes, and to whoever knows the token.
Must never live here: drawing (`page/status.js`), or a number that has to be counted for it alone.
"""

from __future__ import annotations

import hmac
import json
import os
import time
from bisect import bisect_left
from collections import Counter
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any

import trio

from trio_ws import Broker, BrokerError, ConnectionClosed, MemoryBroker, Room

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lobby import Lobby

    from trio_ws import Server, WebSocket

EVERY = 1.0  # seconds
TOKEN_WITHIN = 10.0  # seconds
GUESS = 1.0  # seconds that a wrong token takes
SAMPLE = 20  # new connections whose round trip is measured, each time
BUSIEST = 50  # rooms that are named
RTT_BOUNDS = (0.5, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512)  # milliseconds; the last bar is above
COUNTS = (
    "open",
    "handshaking",
    "accepted",
    "messages_in",
    "messages_out",
    "bytes_in",
    "bytes_out",
    "outbox",
    "slow",
)  # of `trio_ws.ServerStats`


class Status:
    """The numbers of this process, and those that the others tell.

    Args:
        token: whoever sends it may look.
        broker: carries the numbers between processes; None: there is only this one.
    """

    def __init__(self, token: str, lobby: Lobby, broker: Broker | None) -> None:
        self._token = token.encode()
        self._lobby = lobby
        self._room = Room(
            "status", broker=broker or MemoryBroker(keep=1), overflow="drop_oldest", backlog=4
        )
        self._born = time.monotonic()

    async def show(self, ws: WebSocket) -> None:
        """Serve one status page: its first message is the token, then it is told everything."""
        known = False
        with trio.move_on_after(TOKEN_WITHIN):
            known = self._is_token_untrusted(await ws.receive())
        if known:
            async with self._room.join(ws):
                await ws.wait_closed()
        else:
            await trio.sleep(GUESS)
            await ws.close(4003, "wrong token")

    def _is_token_untrusted(self, message: str | bytes) -> bool:
        given = message.encode() if isinstance(message, str) else message
        return hmac.compare_digest(given, self._token)

    async def run(self, server: Server) -> None:
        """Tell the numbers, until cancelled; if the broker is away, those who look here only."""
        while True:
            try:
                async with self._room:
                    while True:
                        async with trio.open_nursery() as nursery:
                            nursery.start_soon(self._tell, server)
                            new = (ws for ws in server.connections if ws.latency is None)
                            for ws in islice(new, SAMPLE):
                                nursery.start_soon(measure, ws)
            except BrokerError:  # it was away when we began
                self._room.publish(self._numbers(server))
                await trio.sleep(EVERY)

    async def _tell(self, server: Server) -> None:
        numbers = self._numbers(server)
        with trio.move_on_after(EVERY):
            try:
                await self._room.broadcast(numbers)
            except BrokerError:
                self._room.publish(numbers)
        await trio.sleep(EVERY)

    def _numbers(self, server: Server) -> str:
        stats, rooms = server.stats(), self._lobby.rooms
        books = [room.room.stats() for room in rooms.values()]
        seats = {name: len(room.presence) for name, room in rooms.items()}
        numbers: dict[str, Any] = {name: getattr(stats, name) for name in COUNTS}
        numbers |= {
            "type": "status",
            "process": self._lobby.process,
            "pid": os.getpid(),
            "uptime": time.monotonic() - self._born,
            "trouble": self._lobby.trouble,
            "closed": dict(stats.closed),
            "refused": dict(stats.refused),
            "rooms": len(rooms),
            "busiest": Counter(seats).most_common(BUSIEST),
            "members": sum(seats.values()),
            "published": sum(book.published for book in books),
            "backlog": sum(book.backlog_bytes for book in books),
            "evicted": self._lobby.evicted + sum(book.evicted for book in books),
            "rtt": histogram(ws.latency for ws in server.connections),
            "rtt_bounds": RTT_BOUNDS,
            "rtt_median": stats.latency_median,
            "rtt_p95": stats.latency_p95,
        }
        return json.dumps(numbers)


async def measure(ws: WebSocket) -> None:
    """Have a round trip measured; the library does so where a connection is idle only."""
    with suppress(ConnectionClosed), trio.move_on_after(EVERY):
        await ws.ping()


def histogram(latencies: Iterable[float | None]) -> list[int]:
    """How many seconds are within each bound, and above the last; what is not measured, nowhere."""
    counts = [0] * (len(RTT_BOUNDS) + 1)
    for latency in latencies:
        if latency is not None:
            counts[bisect_left(RTT_BOUNDS, latency * 1000)] += 1
    return counts
