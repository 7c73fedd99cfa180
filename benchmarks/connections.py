"""Connections of the load: opened by the hundred, each with a whole and right opening handshake.

Lives here: plain sockets, the client's side of the handshake (RFC 6455 section 4.1), how many a
process may have. Must never live here: a WebSocket library, frames, statistics.
"""

from __future__ import annotations

import math
import resource
import select
import socket
import time
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.frames import ACCEPT, handshake

if TYPE_CHECKING:
    from collections.abc import Iterator

AT_ONCE: Final = 32
"""Handshakes under way while many connections are opened: within every server's backlog."""
PATIENCE: Final = 5.0
"""Seconds without any byte after which a server counts as stuck."""
FILES: Final = 1 << 15
"""Open files that the largest case needs, with room to spare."""
SPARE: Final = 100
"""Descriptors a process needs besides its connections."""


class LoadError(Exception):
    """The server did not do what it has to do; the measurement is void."""


class Unmeasurable(Exception):
    """The machine is the reason, not the server: too few open files, or too busy."""


@contextmanager
def holding() -> Iterator[list[socket.socket]]:
    """A list of connections, which are closed at the end.

    Open it around the server's process: then the server is gone before its connections are, and
    nobody's way of logging a thousand lost connections is on the screen.
    """
    connections: list[socket.socket] = []
    try:
        yield connections
    finally:
        for connection in connections:
            connection.close()


def most_connections() -> int:
    """How many connections a process may hold, its limit of open files raised as far as we need.

    Processes started afterwards inherit the limit.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted - SPARE


def _ports_per_address() -> int:
    """How many connections to leave from one address: half of the ports the kernel gives out."""
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    return (last - first + 1) // 2


class _Handshake:
    """One connection on its way: what the server has answered so far."""

    __slots__ = ("began", "connection", "head")

    def __init__(self, port: int, request: bytes, source: int, into: list[socket.socket]) -> None:
        self.head = b""
        self.began = time.perf_counter()
        self.connection = connection = socket.socket()
        into.append(connection)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if source:
            connection.bind((f"127.0.0.{1 + source}", 0))
        # One at a time: on a loopback the kernel answers for the server, which need not run.
        connection.settimeout(PATIENCE)
        connection.connect(("127.0.0.1", port))
        connection.setblocking(False)
        if connection.send(request) != len(request):
            raise LoadError("the kernel did not take a handshake whole")

    def advance(self) -> bool:
        """Read; whether the 101 is there as a whole.

        Raises:
            LoadError: it is something else, or something is behind it.
        """
        data = self.connection.recv(4096)
        self.head += data
        end = self.head.find(b"\r\n\r\n")
        if data and end < 0:
            return False
        if not self.head.startswith(b"HTTP/1.1 101 ") or end + 4 != len(self.head):
            raise LoadError(f"the handshake was answered with {self.head[:200]!r}")
        if ACCEPT not in self.head:
            raise LoadError(f"no right Sec-WebSocket-Accept: {self.head[:200]!r}")
        return True


def open_connections(
    port: int,
    count: int,
    *,
    into: list[socket.socket],
    at_once: int = AT_ONCE,
    seconds: float = math.inf,
) -> list[float]:
    """Open `count` connections, or as many as `seconds` allow, `at_once` of them at a time.

    The non-blocking sockets are appended to `into` in the order they were begun; if the time was
    over first, the last `at_once` may be unfinished. Returns for each that was finished the
    seconds from before its `connect` to the last byte of its 101.

    Raises:
        LoadError: a server that does not switch protocols, or says nothing for `PATIENCE` seconds.
    """
    request = handshake(port)
    per_address = _ports_per_address()
    under_way: dict[int, _Handshake] = {}
    took: list[float] = []
    clock, end, left = time.perf_counter, time.perf_counter() + seconds, count
    with closing(select.epoll()) as epoll:
        while (under_way or left) and clock() < end:
            while left and len(under_way) < at_once:
                left -= 1
                begun = _Handshake(port, request, len(into) // per_address, into)
                number = begun.connection.fileno()
                under_way[number] = begun
                epoll.register(number, select.EPOLLIN)
            ready = epoll.poll(PATIENCE)
            if not ready:
                raise LoadError(f"no handshake was answered within {PATIENCE} seconds")
            for number, _ in ready:
                if under_way[number].advance():
                    took.append(clock() - under_way[number].began)
                    epoll.unregister(number)
                    del under_way[number]
    return took
