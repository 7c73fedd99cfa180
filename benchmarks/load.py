"""The load of small messages: a closed loop that sends prebuilt frames and checks every byte.

Lives here: the epoll loop over connections that somebody opened, what it counted, and what it
shares with the load of large ones (`bulk`). Must never live here: a WebSocket library or an event
loop of one (the load has to be faster than every server, so it knows nothing but the bytes it waits
for), statistics, processes.

A connection has `in_flight` messages under way: for every n replies that one read brings, n new
messages leave in one write. In between stands one comparison with the bytes that must come, so a
server that loses, mixes up or alters a message fails instead of winning.
"""

from __future__ import annotations

import re
import select
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from benchmarks.connections import PATIENCE, LoadError

if TYPE_CHECKING:
    import socket

    from benchmarks.frames import Exchange

MAX_STEP: Final = 64 * 1024
"""Bytes one connection may have under way: what a fresh socket buffer surely takes at once."""
SIZE: Final = 32
"""Bytes of a message where a case does not say."""

_CASE: Final = re.compile(r"(?:(\d+) ([KM])iB )?([1-9]\d*)x([1-9]\d*)", re.ASCII)


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """How the load is spread: `connections`, each with `in_flight` messages of `size` under way."""

    connections: int
    in_flight: int
    size: int = SIZE

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "16x16", or "16 KiB 16x4": connections, then messages in flight on each.

        Raises:
            ValueError: it is not of that form.
        """
        match = _CASE.fullmatch(text)
        if match is None:
            raise ValueError(
                "a case is CONNECTIONSxIN_FLIGHT, such as 100x1, or with the size of a message "
                f"before it, such as 16 KiB 16x4, not {text!r}"
            )
        size, unit, connections, in_flight = match.groups()
        return cls(
            connections=int(connections),
            in_flight=int(in_flight),
            size=int(size) << {"K": 10, "M": 20}[unit] if size else SIZE,
        )


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
    """The driver of `connections`, which are its own until it is closed, and open afterwards."""

    def __init__(
        self, connections: list[socket.socket], exchange: Exchange, in_flight: int
    ) -> None:
        self._size = len(exchange.reply)
        self._requests = [exchange.request * n for n in range(in_flight + 1)]
        self._replies = exchange.reply * (in_flight + 1)
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

        For each read that completed any, `latencies` gets pairs (seconds from the write that sent
        a message to the read that completed its reply, how many messages shared both).

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
                    settle(peer.sent, count, now, latencies)
                    self._send(peer, count, now)
        return messages

    def finish(self) -> None:
        """Let what is under way come back, nothing new leaves.

        Raises:
            LoadError: it did not come back within `PATIENCE` seconds, or not as it was sent.
        """
        for peer in self._peers.values():
            peer.connection.settimeout(PATIENCE)
            while peer.sent:
                try:
                    data = peer.recv(len(self._replies))
                except OSError as exc:
                    raise LoadError("what was under way never came back") from exc
                if not data or not self._replies.startswith(data, peer.offset):
                    raise LoadError(f"not the reply: {data[:80]!r} (offset {peer.offset})")
                count, peer.offset = divmod(peer.offset + len(data), self._size)
                settle(peer.sent, count, time.perf_counter(), [])
            peer.connection.setblocking(False)

    def _send(self, peer: _Peer, count: int, now: float) -> None:
        request = self._requests[count]
        if peer.send(request) != len(request):
            raise LoadError("the kernel did not take a step of the load whole")
        peer.sent.append((now, count))


def settle(
    sent: deque[tuple[float, int]], count: int, now: float, latencies: list[tuple[float, int]]
) -> None:
    """Match `count` replies with the oldest writes.

    Raises:
        LoadError: there are not that many.
    """
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
