"""When a connection is neglected, silent, dead, idle or too old: clocks and verdicts.

Lives here: what the flags of the hot path mean at a tick, and what is to be done. Must never live
here: the flags' setting, tasks, sockets, a clock of its own.

The theory. Life is any byte from the peer, or any byte that a full send buffer takes. The hot path
only sets flags; whoever ticks reads the clock, so every verdict carries one tick of tolerance.

* After `ping_interval` without life a ping goes out (a little earlier, by chance, so that
  connections that began together do not ping together). Without life for `ping_timeout` after it,
  and never sooner than interval plus timeout after the last sign, the peer is dead. The ping's
  clock starts when its last byte has left and again whenever we resume reading: while *we* do not
  read, the peer cannot answer.
* A second clock: bytes wait to be written and none has left for `ping_timeout`: dead, however
  chatty the peer is.
* `idle_timeout` counts messages, `max_lifetime` counts nothing: the connection is closed, politely.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._limits import Limits
    from ._pings import PendingPing

JITTER = 0.1
"""Part of `ping_interval` by which a ping may come early."""


class Verdict(Enum):
    """What is to be done at this tick."""

    NOTHING = auto()
    PING = auto()
    NO_LIFE = auto()
    NO_PROGRESS = auto()
    EOF_UNREPORTED = auto()
    IDLE = auto()
    TOO_OLD = auto()


@dataclass(kw_only=True, slots=True)
class Signs:
    """What happened since the last tick, and what is so now.

    Attributes:
        bytes_in: bytes the peer has sent so far.
        moved: a full send buffer took bytes.
        written: bytes the transport has taken so far.
        spoken: messages sent and received so far.
        paused: we do not read, because the application does not.
        waiting: bytes wait to be written.
        eof: the peer's bytes have ended without a Close, and nobody has asked yet.
    """

    bytes_in: int
    moved: bool
    written: int
    spoken: int
    paused: bool
    waiting: bool
    eof: bool


class Vigil:
    """The clocks of one connection. Times are seconds of the caller's clock.

    Attributes:
        bytes_in: what the peer had sent at the last tick.
        ping: the keepalive ping that no sign of life has followed yet.
    """

    __slots__ = (
        "_born",
        "_early",
        "_eof_since",
        "_last_life",
        "_last_spoken",
        "_limits",
        "_moved_at",
        "_reading_since",
        "_spoken",
        "_written",
        "bytes_in",
        "ping",
    )

    def __init__(self, limits: Limits, now: float, chance: float) -> None:
        """
        Args:
            chance: a random number in [0, 1), for the jitter.
        """
        self._limits = limits
        self._early = 1.0 - JITTER * chance
        self._born = self._last_life = self._last_spoken = now
        self._moved_at = self._reading_since = now
        self._eof_since = math.inf
        self._spoken = self._written = 0
        self.bytes_in = 0
        self.ping: PendingPing | None = None

    def tick(self, now: float, signs: Signs) -> Verdict:
        """Read the flags. The caller does what the verdict says; after PING it sets `ping`."""
        limits = self._limits
        if signs.moved or signs.bytes_in != self.bytes_in:
            self.bytes_in = signs.bytes_in
            self._last_life = now
            self.ping = None
        if signs.written != self._written or not signs.waiting:
            self._written, self._moved_at = signs.written, now
        if signs.paused:
            self._reading_since = now
        if signs.spoken != self._spoken:
            self._spoken, self._last_spoken = signs.spoken, now
        if not signs.eof:
            self._eof_since = math.inf
        elif self._eof_since == math.inf:
            self._eof_since = now
        timeout = limits.ping_timeout
        if timeout is not None and now - self._moved_at >= timeout:
            return Verdict.NO_PROGRESS
        if now - self._eof_since >= limits.close_timeout:
            return Verdict.EOF_UNREPORTED
        if limits.idle_timeout is not None and now - self._last_spoken >= limits.idle_timeout:
            return Verdict.IDLE
        if limits.max_lifetime is not None and now - self._born >= limits.max_lifetime:
            return Verdict.TOO_OLD
        return Verdict.NOTHING if signs.eof or signs.paused else self._silence(now)

    def _silence(self, now: float) -> Verdict:
        interval, timeout = self._limits.ping_interval, self._limits.ping_timeout
        if interval is None:
            return Verdict.NOTHING
        if self.ping is None:
            due = self._last_life + interval * self._early
            return Verdict.PING if now >= due else Verdict.NOTHING
        if timeout is None or self.ping.sent_at is None:
            return Verdict.NOTHING
        deadline = max(self.ping.sent_at, self._reading_since) + timeout
        if now >= max(deadline, self._last_life + interval + timeout):
            return Verdict.NO_LIFE
        return Verdict.NOTHING
