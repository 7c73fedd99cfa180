"""What a server has done so far, and what it holds now: a frozen snapshot.

Lives here: `ServerStats`, and the totals of the connections that are over. Must never live here:
counting on the hot path. Open connections keep their own counts anyway, for the end of their
closing handshake and for the attendant; a snapshot sums them, and a connection that ends leaves its
share in the totals.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from ._attendant import ReadsNothing
from ._response import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ._connection import Connection
    from ._response import Response

__all__ = ["ServerStats", "Totals"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerStats:
    """A snapshot of a `Server`, from `Server.stats`. Counts begin with the server.

    ``accepted == open + sum(closed.values())`` holds in every snapshot.

    Attributes:
        open: connections past their handshake whose handler or socket still lives.
        handshaking: streams whose opening handshake is under way, or whose refusal is being sent.
        accepted: handshakes answered with 101.
        refused: handshakes refused, by the row of the handshake's table that refused them.
        closed: connections that are over, by close code (`Close.code`).
        messages_in: messages that have arrived whole; also those nobody has received yet.
        messages_out: messages sent.
        bytes_in: bytes read from open connections: frames, as they are on the wire below TLS's
            records, handshakes not included.
        bytes_out: bytes written to them, likewise.
        outbox: bytes of frames that wait in the outboxes now, because peers do not read.
        slow: connections ended because the peer read nothing for `Limits.ping_timeout`.
        latency_min: seconds; the shortest of the last measured round trips of the open connections
            (``ws.latency``). None, like the next three, if none has been measured.
        latency_median: their median.
        latency_p95: the one that 95 of 100 do not exceed.
        latency_max: the longest.
    """

    open: int
    handshaking: int
    accepted: int
    refused: Mapping[str, int]
    closed: Mapping[int, int]
    messages_in: int
    messages_out: int
    bytes_in: int
    bytes_out: int
    outbox: int
    slow: int
    latency_min: float | None
    latency_median: float | None
    latency_p95: float | None
    latency_max: float | None


class Totals:
    """The sums over everything that is over, and over what nobody else counts."""

    def __init__(self) -> None:
        self.accepted = 0
        self.refused: Counter[str] = Counter()
        self.closed: Counter[int] = Counter()
        self.messages_in = 0
        self.messages_out = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.slow = 0

    def refused_by(self, answer: Response) -> None:
        """A handshake was answered with something else than 101."""
        if isinstance(answer, Refusal):
            self.refused[answer.row] += 1

    def admitted(self, trailing_data: bytes) -> None:
        """A handshake was answered with 101; its last bytes were frames already."""
        self.accepted += 1
        self.bytes_in += len(trailing_data)

    def ended(self, connection: Connection) -> None:
        """A connection is over: its counts are final."""
        assert connection.closed is not None
        self.closed[connection.closed.code] += 1
        self.messages_in += connection.protocol.inbox.received
        self.messages_out += connection.sent
        self.bytes_in += connection.reader.bytes_in
        self.bytes_out += connection.writer.outbox.written
        self.slow += isinstance(connection.cause, ReadsNothing)

    def snapshot(self, connections: Iterable[Connection], handshaking: int) -> ServerStats:
        """What is over, and what is open now."""
        held = list(connections)
        latencies = sorted(each.pings.latency for each in held if each.pings.latency is not None)
        return ServerStats(
            open=len(held),
            handshaking=handshaking,
            accepted=self.accepted,
            refused=MappingProxyType(dict(self.refused)),
            closed=MappingProxyType(dict(self.closed)),
            messages_in=self.messages_in + sum(c.protocol.inbox.received for c in held),
            messages_out=self.messages_out + sum(c.sent for c in held),
            bytes_in=self.bytes_in + sum(c.reader.bytes_in for c in held),
            bytes_out=self.bytes_out + sum(c.writer.outbox.written for c in held),
            outbox=sum(c.writer.outbox.size for c in held),
            slow=self.slow,
            latency_min=at(latencies, 0.0),
            latency_median=at(latencies, 0.5),
            latency_p95=at(latencies, 0.95),
            latency_max=at(latencies, 1.0),
        )


def at(ordered: list[float], share: float) -> float | None:
    """The value that `share` of the others do not exceed (nearest rank); None of no values."""
    return ordered[round(share * (len(ordered) - 1))] if ordered else None
