"""The suite `broadcast`: how fast does one message reach many, and what does each delivery cost?

Lives here: the load (one publisher, members that only read). Must never live here: a WebSocket
library, processes, statistics.

All connections are members; the first one publishes. It keeps a number of messages under way: the
next one leaves when one has reached *all* members. So a server that forgets the last members does
not win, and one that is asked for several messages at once may write them together. Every byte is
compared with the bytes that must come.
"""

from __future__ import annotations

import select
import time
from contextlib import closing
from typing import TYPE_CHECKING, Final

from benchmarks.connections import PATIENCE, LoadError, open_connections
from benchmarks.frames import Exchange
from benchmarks.load import MAX_STEP, Case
from benchmarks.window import Server, Window

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

CASES: Final = ("100x1", "1000x1", "100x16", "1000x16")
WARM_UP: Final = 0.3
READ_SIZE: Final = 1 << 16


def parse(text: str) -> Case:
    """Read "1000x16": members, then messages under way.

    Raises:
        ValueError: it is not of that form, or more than a socket buffer surely takes.
    """
    case = Case.parse(text)
    if case.size * case.in_flight > MAX_STEP // 2:
        raise ValueError(f"a publisher writes all at once, so not {text!r}")
    return case


class Audience:
    """Connections that read what the first of them publishes."""

    def __init__(
        self, connections: list[socket.socket], exchange: Exchange, in_flight: int
    ) -> None:
        self._publish = connections[0].send
        self._request = exchange.request
        self._size = len(exchange.reply)
        self._expected = exchange.reply * (READ_SIZE // self._size + 2)
        self._connections = {each.fileno(): each for each in connections}
        self._received = dict.fromkeys(self._connections, 0)
        self._in_flight = in_flight
        self._missing: dict[int, int] = {}
        self._sent: dict[int, float] = {}
        self._next = 0
        self._epoll = select.epoll()
        for number in self._connections:
            self._epoll.register(number, select.EPOLLIN)

    def close(self) -> None:
        """Give the epoll back; the connections stay with who opened them."""
        self._epoll.close()

    def gather(self) -> None:
        """Have the last who came say something, and everybody hear it: a server may answer 101 a
        little before it counts a member in, and what is published meanwhile passes him by."""
        *_, last = self._connections.values()
        self._send(1, last.send)
        self.finish()

    def _send(self, count: int, publish: Callable[[bytes], int]) -> None:
        now = time.perf_counter()
        request = self._request * count
        if publish(request) != len(request):
            raise LoadError("the kernel did not take a step of the load whole")
        for _ in range(count):
            self._missing[self._next] = len(self._connections)
            self._sent[self._next] = now
            self._next += 1

    def start(self) -> None:
        """Put the first messages under way."""
        self._send(self._in_flight, self._publish)

    def finish(self) -> None:
        """Let what is under way reach everybody, nothing new leaves."""
        while self._missing:
            self._turn([], publish=False)

    def drive(self, seconds: float, latencies: list[tuple[float, int]]) -> int:
        """Publish and read for `seconds`; returns the deliveries.

        For each message that reached the last of the members, `latencies` gets the seconds since
        it was published.

        Raises:
            LoadError: not what was published, or nothing at all for `PATIENCE` seconds.
        """
        deliveries = 0
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            deliveries += self._turn(latencies, publish=True)
        return deliveries

    def _turn(self, latencies: list[tuple[float, int]], *, publish: bool) -> int:
        size, missing = self._size, self._missing
        received, connections, expected = self._received, self._connections, self._expected
        ready = self._epoll.poll(PATIENCE)
        if not ready:
            raise LoadError(f"no byte within {PATIENCE} seconds")
        complete = deliveries = 0
        for number, _ in ready:
            data = connections[number].recv(READ_SIZE)
            before = received[number]
            if not data or not expected.startswith(data, before % size):
                raise LoadError(f"not what was published: {data[:80]!r}")
            after = received[number] = before + len(data)
            for index in range(before // size, after // size):
                if index not in missing:
                    raise LoadError("more deliveries than messages")
                deliveries += 1
                missing[index] -= 1
                if not missing[index]:
                    del missing[index]
                    complete += 1
                    latencies.append((time.perf_counter() - self._sent.pop(index), 1))
        if complete and publish:
            self._send(complete, self._publish)
        return deliveries


def measure(
    server: Server, connections: list[socket.socket], text: str, seconds: float
) -> dict[str, float]:
    """One case, one window; the connections are left open in `connections`.

    Raises:
        LoadError: somebody got something else, or nothing.
    """
    case = parse(text)
    exchange = Exchange.of(size=case.size, unmasks=True)
    open_connections(server.port, case.connections, into=connections)
    latencies: list[tuple[float, int]] = []
    with closing(Audience(connections, exchange, case.in_flight)) as audience:
        audience.gather()
        audience.start()
        audience.drive(WARM_UP, [])
        with Window(server) as window:
            deliveries = audience.drive(seconds, latencies)
        audience.finish()
    if not latencies:  # it reached some, but nobody knows whether it would have reached all
        raise LoadError(f"no message reached all members within {seconds} seconds")
    return window.values(deliveries, "delivery", "deliveries", latencies)
