"""Our pings under way, and which pong answers which (RFC 6455 sections 5.5.2, 5.5.3).

Lives here: payloads, matching, round trips. Must never live here: clocks, frames, tasks.
"""

from __future__ import annotations

import os


class PendingPing:
    """A ping of ours that waits for its pong; times in seconds of one clock.

    Attributes:
        payload: what its pong must carry.
        sent_at: when its last byte left, None before.
        round_trip: from then to its pong, None before.
    """

    __slots__ = ("payload", "round_trip", "sent_at")

    def __init__(self, payload: bytes) -> None:
        self.payload = payload
        self.sent_at: float | None = None
        self.round_trip: float | None = None


class Pings:
    """The pings of one connection, oldest first.

    Attributes:
        latency: the last measured round trip.
    """

    __slots__ = ("_count", "_pending", "latency")

    def __init__(self) -> None:
        self._pending: dict[bytes, PendingPing] = {}
        self._count = 0
        self.latency: float | None = None

    def new(self) -> PendingPing:
        """A ping under a payload that no other one of this connection has, and that a peer cannot
        answer before it has seen it."""
        ping = PendingPing(self._count.to_bytes(4, "big") + os.urandom(4))
        self._count += 1
        self._pending[ping.payload] = ping
        return ping

    def forget(self, ping: PendingPing) -> None:
        """Nobody waits for it any more."""
        self._pending.pop(ping.payload, None)

    def answered(self, payload: bytes, now: float) -> bool:
        """A pong came: it answers its ping and every older one. False if it answers none."""
        if payload not in self._pending:
            return False
        for key, ping in list(self._pending.items()):
            del self._pending[key]
            ping.round_trip = self.latency = now - (now if ping.sent_at is None else ping.sent_at)
            if key == payload:
                break
        return True
