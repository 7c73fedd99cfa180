"""When a connection is neglected, silent, dead, idle or too old: clocks and verdicts.

Lives here: what the flags of the hot path mean at a tick, and what is to be done. Must never live
here: the flags' setting, tasks, sockets, a clock of its own.

The theory. Life is any byte from the peer, or any byte that a full send buffer takes. The hot path
only sets flags; whoever ticks reads the clock, so every verdict carries one tick of tolerance: it
may come a tick late, and never early. What a tick finds is taken to have begun at this very tick.

* After `ping_interval` without life a ping goes out, at the last tick before (a little earlier, by
  chance, so that connections that began together do not ping together). Without life for
  `ping_timeout` after it, and never sooner than interval plus timeout after the last sign, the peer
  is dead. The ping's clock starts when its last byte has left and again whenever we resume reading:
  while *we* do not read, the peer cannot answer. Nor can it while the ping stands in our kernel's
  queue, behind megabytes perhaps, which a slow peer takes bit by bit.
* A second clock: bytes wait to be written and none has left for `ping_timeout`: dead, however
  chatty the peer is.
* `idle_timeout` counts messages and their fragments, `max_lifetime` counts nothing: the connection
  is closed, politely.
* A tick that comes much too late was not waited for: the process was stopped, or a task kept the
  loop for itself. Nobody was listened to meanwhile, so for all clocks but `max_lifetime` that time
  has not passed; the reading resumes now.
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

TICK = 1.0
"""Seconds between two looks at most: what a peer may wait for a pong from a busy handler."""

LATE = 2.0
"""A tick after more than so many times its due is late. Ticks are a quarter of the shortest clock,
so that a delay which is not taken for one is no more than half of any clock."""


def tick_of(limits: Limits) -> float:
    """Seconds between two looks: four in the shortest clock, and `TICK` at most."""
    clocks = (limits.ping_interval, limits.ping_timeout, limits.idle_timeout, limits.max_lifetime)
    return min(TICK, *(clock / 4 for clock in clocks if clock is not None), limits.close_timeout)


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
        spoken: messages and fragments sent and received so far.
        composing: the application is writing a message in pieces.
        paused: we do not read, because the application does not.
        waiting: bytes wait to be written.
        unacknowledged: bytes that our kernel took and the peer's has not; 0 if not known. Asked for
            only while `unanswered`.
        eof: the peer's bytes have ended without a Close, and nobody has asked yet.
    """

    bytes_in: int
    moved: bool
    written: int
    spoken: int
    composing: bool
    paused: bool
    waiting: bool
    unacknowledged: int
    eof: bool


class Vigil:
    """The clocks of one connection. Times are seconds of the caller's clock.

    Attributes:
        ping: the last keepalive ping.
        unanswered: there has been no sign of life since.
    """

    __slots__ = (
        "_born",
        "_bytes_in",
        "_early",
        "_eof_since",
        "_last_life",
        "_last_spoken",
        "_limits",
        "_moved_at",
        "_paused",
        "_reading_since",
        "_spoken",
        "_ticked_at",
        "_unacknowledged",
        "_waiting",
        "_written",
        "ping",
        "unanswered",
    )

    def __init__(self, limits: Limits, now: float, chance: float) -> None:
        """
        Args:
            chance: a random number in [0, 1), for the jitter.
        """
        self._limits = limits
        self._early = 1.0 - JITTER * chance
        self._born = self._last_life = self._last_spoken = self._ticked_at = now
        self._moved_at = self._reading_since = now
        self._eof_since = math.inf
        self._bytes_in = self._spoken = self._written = self._unacknowledged = 0
        self._paused = self._waiting = self.unanswered = False
        self.ping: PendingPing | None = None

    def tick(self, now: float, signs: Signs, tick: float = TICK) -> Verdict:
        """Read the flags. The caller does what the verdict says; for PING it sets `ping`.

        Args:
            tick: the seconds that were to pass since the last tick.
        """
        if now - self._ticked_at > LATE * tick:
            self._forgive(now - self._ticked_at, now)
        self._ticked_at = now
        self._read(now, signs)
        limits = self._limits
        timeout = limits.ping_timeout
        if timeout is not None and now - self._moved_at >= timeout:
            return Verdict.NO_PROGRESS
        if now - self._eof_since >= limits.close_timeout:
            return Verdict.EOF_UNREPORTED
        if limits.idle_timeout is not None and now - self._last_spoken >= limits.idle_timeout:
            return Verdict.IDLE
        if limits.max_lifetime is not None and now - self._born >= limits.max_lifetime:
            return Verdict.TOO_OLD
        return Verdict.NOTHING if signs.eof or signs.paused else self._silence(now, tick)

    def _forgive(self, lost: float, now: float) -> None:
        self._last_life += lost
        self._last_spoken += lost
        self._moved_at += lost
        self._eof_since += lost
        self._reading_since = now

    def _read(self, now: float, signs: Signs) -> None:
        if signs.moved or signs.bytes_in != self._bytes_in:
            self._bytes_in, self._last_life = signs.bytes_in, now
            self.unanswered = False
        if signs.written != self._written or not (signs.waiting and self._waiting):
            self._written, self._moved_at = signs.written, now
        self._waiting = signs.waiting
        if signs.paused or self._paused:
            self._paused, self._reading_since = signs.paused, now
        if 0 < signs.unacknowledged < self._unacknowledged:
            self._reading_since = now
        self._unacknowledged = signs.unacknowledged
        if signs.composing or signs.spoken != self._spoken:
            self._spoken, self._last_spoken = signs.spoken, now
        if not signs.eof:
            self._eof_since = math.inf
        elif self._eof_since == math.inf:
            self._eof_since = now

    def _silence(self, now: float, tick: float) -> Verdict:
        interval, timeout = self._limits.ping_interval, self._limits.ping_timeout
        if interval is None:
            return Verdict.NOTHING
        left = None if self.ping is None else self.ping.sent_at
        if not self.unanswered:
            if now + tick <= self._last_life + interval * self._early:
                return Verdict.NOTHING  # the next tick is early enough
            if self.ping is not None and left is None:
                return Verdict.NOTHING  # it has not even left; a second one would say no more
            self.unanswered = True
            return Verdict.PING
        if timeout is None or left is None:
            return Verdict.NOTHING
        deadline = max(left, self._reading_since) + timeout
        if now >= max(deadline, self._last_life + interval + timeout):
            return Verdict.NO_LIFE
        return Verdict.NOTHING
