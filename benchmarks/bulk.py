"""The load of large messages: it never waits for a write, and reads while it has bytes to send.

Lives here: the epoll loop for messages that no socket buffer takes whole. Must never live here:
what `load` must never hold; copies of the messages.

Theory. All messages of a run are the same bytes, and so are all replies. What a connection still
has to send is therefore a place in the message and a number of bytes, and the kernel takes as much
of it as it likes, whenever it likes. A server that does not read before its reply is written is
served, too, because this load always reads what there is.
"""

from __future__ import annotations

import select
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from benchmarks.connections import PATIENCE, LoadError
from benchmarks.load import settle

if TYPE_CHECKING:
    import socket

    from benchmarks.frames import Exchange

READ_SIZE: Final = 256 * 1024


class _Peer:
    """One connection: what it has to send yet and to get yet, and since when.

    Attributes:
        place: where in the message the next byte to send is.
        pending: how many bytes wait for the kernel.
        offset: where in the reply the next byte is.
        watched: whether epoll tells when the kernel takes bytes again.
    """

    __slots__ = ("connection", "offset", "pending", "place", "sent", "watched")

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.place = self.pending = self.offset = 0
        self.watched = False
        self.sent: deque[tuple[float, int]] = deque()


class Bulk:
    """The driver of `connections`; the same calls as `load.Load`.

    A latency begins when the message is queued, which is when one before it has come back.
    """

    def __init__(
        self, connections: list[socket.socket], exchange: Exchange, in_flight: int
    ) -> None:
        self._request_size = len(exchange.request)
        self._requests = memoryview(exchange.request * (in_flight + 1))
        self._reply_size = len(exchange.reply)
        self._replies = exchange.reply * (READ_SIZE // self._reply_size + 2)
        self._in_flight = in_flight
        self._buffer = bytearray(READ_SIZE)
        self._view = memoryview(self._buffer)
        self._peers = {connection.fileno(): _Peer(connection) for connection in connections}
        self._epoll = select.epoll()
        for descriptor in self._peers:
            self._epoll.register(descriptor, select.EPOLLIN)

    def close(self) -> None:
        """Give the epoll back; the connections stay with who opened them."""
        self._epoll.close()

    def start(self) -> None:
        """Put the first messages under way."""
        for peer in self._peers.values():
            self._queue(peer, self._in_flight, time.perf_counter())

    def drive(self, seconds: float, latencies: list[tuple[float, int]]) -> int:
        """Keep the messages going round for `seconds`; see `load.Load.drive`."""
        clock, messages = time.perf_counter, 0
        end = clock() + seconds
        while (left := end - clock()) > 0:
            messages += self._turn(left, latencies, refill=True)
        return messages

    def finish(self) -> None:
        """Let what is under way come back, nothing new leaves; see `load.Load.finish`."""
        end = time.perf_counter() + PATIENCE
        while any(peer.sent for peer in self._peers.values()):
            left = end - time.perf_counter()
            if left <= 0:
                raise LoadError("what was under way never came back")
            self._turn(left, [], refill=False)

    def _turn(self, seconds: float, latencies: list[tuple[float, int]], *, refill: bool) -> int:
        messages = 0
        for descriptor, events in self._epoll.poll(seconds):
            peer = self._peers[descriptor]
            if events & ~select.EPOLLOUT:
                count = self._read(peer)
                if count:
                    now = time.perf_counter()
                    messages += count
                    settle(peer.sent, count, now, latencies)
                    if refill:
                        self._queue(peer, count, now)
            if events & select.EPOLLOUT:
                self._write(peer)
        return messages

    def _read(self, peer: _Peer) -> int:
        """Read once; how many replies it completed."""
        got = peer.connection.recv_into(self._buffer)
        data = self._view[:got]
        if not got or not self._replies.startswith(data, peer.offset):
            raise LoadError(f"not the reply: {bytes(data[:80])!r} (offset {peer.offset})")
        count, peer.offset = divmod(peer.offset + got, self._reply_size)
        return count

    def _queue(self, peer: _Peer, count: int, now: float) -> None:
        peer.sent.append((now, count))
        peer.pending += count * self._request_size
        if not peer.watched:
            self._write(peer)

    def _write(self, peer: _Peer) -> None:
        """Offer what is pending to the kernel; epoll calls again if it does not take all."""
        try:
            taken = peer.connection.send(self._requests[peer.place : peer.place + peer.pending])
        except BlockingIOError:
            taken = 0
        peer.place = (peer.place + taken) % self._request_size
        peer.pending -= taken
        if peer.watched != bool(peer.pending):
            peer.watched = not peer.watched
            events = select.EPOLLIN | (select.EPOLLOUT if peer.watched else 0)
            self._epoll.modify(peer.connection.fileno(), events)
