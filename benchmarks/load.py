"""The load: a closed loop over plain sockets that sends prebuilt frames and checks every byte.

Lives here: the client's side of the handshake, the epoll loop, what it counted.
Must never live here: a WebSocket library or an event loop of one (the load has to be faster than
every server, so it knows nothing but the bytes it waits for), statistics, processes.

A connection has `in_flight` messages under way: for every n replies that one read brings, n new
messages leave in one write. In between stands one comparison with the bytes that must come, so a
server that loses, mixes up or alters a message fails instead of winning.
"""

from __future__ import annotations

import base64
import gc
import os
import select
import socket
import time
from collections import deque
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from benchmarks.frames import Exchange, close_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_STEP: Final = 64 * 1024
"""Bytes one connection may have under way: what a fresh socket buffer surely takes at once."""
SOCKET_TIMEOUT: Final = 5.0


class LoadError(Exception):
    """The server did not do what an echo server does; the measurement is void."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """How the load is spread: `connections`, each with `in_flight` messages under way."""

    connections: int
    in_flight: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "16x16": connections, then messages in flight on each.

        Raises:
            ValueError: it is not of that form.
        """
        connections, separator, in_flight = text.partition("x")
        if not (separator and connections.isdecimal() and in_flight.isdecimal()):
            raise ValueError(f"a case is CONNECTIONSxIN_FLIGHT, such as 100x1, not {text!r}")
        case = cls(connections=int(connections), in_flight=int(in_flight))
        if not (case.connections and case.in_flight):
            raise ValueError(f"a case needs at least 1x1, not {text!r}")
        return case

    def __str__(self) -> str:
        return f"{self.connections}x{self.in_flight}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """What happened in the measured window.

    Attributes:
        messages: replies that came back whole.
        seconds: how long the window really was.
        server_cpu, load_cpu: CPU seconds the two processes used in it.
        latencies: pairs (seconds from the write that sent a message to the read that completed
            its reply, how many messages shared both).
    """

    messages: int
    seconds: float
    server_cpu: float
    load_cpu: float
    latencies: list[tuple[float, int]]


def open_connection(port: int) -> socket.socket:
    """Connect to 127.0.0.1 and upgrade; the socket comes back non-blocking.

    Raises:
        LoadError: the server did not switch protocols, or sent something right after.
    """
    connection = socket.create_connection(("127.0.0.1", port), timeout=SOCKET_TIMEOUT)
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(
            b"GET / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\n\r\n"
            % (port, base64.b64encode(os.urandom(16)))
        )
        head = b""
        while b"\r\n\r\n" not in head and (data := connection.recv(4096)):
            head += data
        if not head.startswith(b"HTTP/1.1 101 ") or not head.endswith(b"\r\n\r\n"):
            raise LoadError(f"the handshake was answered with {head[:200]!r}")
        connection.setblocking(False)
    except BaseException:
        connection.close()
        raise
    return connection


class _Peer:
    """One connection: where its next reply starts, and when what is under way was sent."""

    __slots__ = ("connection", "offset", "recv", "send", "sent")

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.recv = connection.recv
        self.send = connection.send
        self.offset = 0
        self.sent: deque[tuple[float, int]] = deque()


class Load:
    """Open connections that echo; made and ended by `connected`."""

    def __init__(self, connections: list[socket.socket], exchange: Exchange, case: Case) -> None:
        self._size = len(exchange.reply)
        self._requests = [exchange.request * n for n in range(case.in_flight + 1)]
        self._replies = exchange.reply * (case.in_flight + 1)
        self._epoll = select.epoll()
        self._peers = {connection.fileno(): _Peer(connection) for connection in connections}
        for descriptor in self._peers:
            self._epoll.register(descriptor, select.EPOLLIN)

    def close(self) -> None:
        """Give the epoll back; the connections stay with who opened them."""
        self._epoll.close()

    def start(self) -> None:
        """Put the first messages under way."""
        for peer in self._peers.values():
            self._send(peer, len(self._requests) - 1, time.perf_counter())

    def drive(self, seconds: float, latencies: list[tuple[float, int]]) -> int:
        """Keep the messages going round for `seconds`; returns how many came back.

        Raises:
            LoadError: a reply was not what was sent, or a connection ended.
        """
        peers, poll, clock, replies = (
            self._peers,
            self._epoll.poll,
            time.perf_counter,
            self._replies,
        )
        at_most, size = len(replies), self._size
        messages = 0
        end = clock() + seconds
        while (left := end - clock()) > 0:
            for descriptor, _ in poll(left):
                peer = peers[descriptor]
                data = peer.recv(at_most)
                now = clock()
                if not data or not replies.startswith(data, peer.offset):
                    raise LoadError(f"not the reply: {data[:80]!r} (offset {peer.offset})")
                count, peer.offset = divmod(peer.offset + len(data), size)
                if count:
                    messages += count
                    _settle(peer.sent, count, now, latencies)
                    self._send(peer, count, now)
        return messages

    def finish(self) -> None:
        """Let what is under way come back, nothing new leaves: no server closes with work left.

        Raises:
            LoadError: it did not come back within `SOCKET_TIMEOUT` seconds.
        """
        for peer in self._peers.values():
            missing = sum(count for _, count in peer.sent) * self._size - peer.offset
            peer.connection.settimeout(SOCKET_TIMEOUT)
            try:
                while missing > 0 and (data := peer.recv(missing)):
                    missing -= len(data)
            except OSError as exc:
                raise LoadError(f"{missing} bytes never came back") from exc

    def _send(self, peer: _Peer, count: int, now: float) -> None:
        request = self._requests[count]
        if peer.send(request) != len(request):
            raise LoadError("the kernel did not take a step of the load whole")
        peer.sent.append((now, count))


def _settle(
    sent: deque[tuple[float, int]], count: int, now: float, latencies: list[tuple[float, int]]
) -> None:
    """Match `count` replies with the oldest writes."""
    while count:
        if not sent:
            raise LoadError("more replies than messages")
        sent_at, waiting = sent[0]
        if waiting <= count:
            sent.popleft()
        else:
            sent[0] = (sent_at, waiting - count)
            waiting = count
        latencies.append((now - sent_at, waiting))
        count -= waiting


@contextmanager
def connected(port: int, case: Case, exchange: Exchange) -> Iterator[Load]:
    """Open the connections of `case`; at the end say Close, and wait for each to end (bounded)."""
    if len(exchange.request) * case.in_flight > MAX_STEP:
        raise ValueError(f"{case}: over {MAX_STEP} bytes under way on one connection")
    connections: list[socket.socket] = []
    try:
        connections.extend(open_connection(port) for _ in range(case.connections))
        with closing(Load(connections, exchange, case)) as load:
            yield load
            load.finish()
        part(connections)
    finally:
        for connection in connections:
            connection.close()


def part(connections: list[socket.socket]) -> None:
    """Close politely. A server that lingers is left behind: what it does now is not measured."""
    goodbye = close_frame()
    end = time.monotonic() + SOCKET_TIMEOUT
    for connection in connections:
        try:
            connection.sendall(goodbye)
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass
    for connection in connections:
        try:
            while time.monotonic() < end and connection.recv(65536):
                pass
        except OSError:
            pass


def measure(
    port: int,
    case: Case,
    exchange: Exchange,
    *,
    warm_up: float,
    seconds: float,
    server_cpu: Callable[[], float],
) -> Window:
    """Warm up, then count for `seconds`. Nothing of before or after is in the `Window`.

    Raises:
        LoadError: see `Load.drive`; also if no message at all came back.
        OSError: no connection to the server.
    """
    latencies: list[tuple[float, int]] = []
    with connected(port, case, exchange) as load:
        load.start()
        load.drive(warm_up, [])
        gc.collect()
        gc.disable()  # the list of latencies grows: a collection would show up as latency
        try:
            cpu, own_cpu, start = server_cpu(), time.process_time(), time.perf_counter()
            messages = load.drive(seconds, latencies)
            end, own_end, cpu_end = time.perf_counter(), time.process_time(), server_cpu()
        finally:
            gc.enable()
    if not messages:
        raise LoadError(f"no reply within {seconds} seconds")
    return Window(
        messages=messages,
        seconds=end - start,
        server_cpu=cpu_end - cpu,
        load_cpu=own_end - own_cpu,
        latencies=latencies,
    )
