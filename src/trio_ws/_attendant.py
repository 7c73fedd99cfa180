"""The attendant: one task that looks after the connections nobody looks after.

Lives here: the tick, reading for neglected connections, carrying out the verdicts of `_vigil`. Must
never live here: clocks of one connection (`_vigil`), what bytes mean (`_connection`).

A handler that computes, sleeps or only sends does not drive its connection. About once a second the
attendant reads for it, within `read_ahead`: pings are answered, a Close is seen. A plain socket it
polls; on another stream, where a read cannot be tried without waiting, it starts a background
driver that steps aside when somebody else comes. Sockets it may not read, because what was read
ahead fills its bound, it asks the kernel about: a peer that is gone must not stay unnoticed.
"""

from __future__ import annotations

import logging
import random
import select
from typing import TYPE_CHECKING

import trio

from ._vigil import Signs, Verdict, Vigil, tick_of

if TYPE_CHECKING:
    from ._connection import Connection
    from ._limits import Limits
    from ._services import Services

log = logging.getLogger("trio_ws.connection")

SLICE = 100
"""Connections looked at between two checkpoints: about a millisecond."""

_HUNG_UP = getattr(select, "POLLERR", 0) | getattr(select, "POLLHUP", 0)
_HALF_CLOSED = getattr(select, "POLLRDHUP", 0)  # Linux


class ReadsNothing(TimeoutError):
    """The peer has read nothing for `ping_timeout`, and bytes wait for it."""


class Attendant:
    """Looks after the connections of one server, or of one client connection."""

    __slots__ = ("_limits", "_services", "_tick", "_vigils", "_wake")

    def __init__(self, limits: Limits, services: Services) -> None:
        self._limits = limits
        self._services = services
        self._tick = tick_of(limits)
        self._vigils: dict[Connection, Vigil] = {}
        self._wake: trio.Event | None = None

    def watch(self, connection: Connection) -> None:
        """Look after `connection` until its socket is gone."""
        self._vigils[connection] = Vigil(self._limits, trio.current_time(), random.random())  # noqa: S311
        if self._wake is None:
            self._wake = trio.Event()
            self._services.start(self._attend)
        self._wake.set()

    async def _attend(self) -> None:
        while True:
            if not self._vigils:  # no connection, no clock
                self._wake = trio.Event()
                await self._wake.wait()
            await trio.sleep(self._tick)
            await self._look_around()

    async def _look_around(self) -> None:
        """One tick, in slices. A function of its own: between two ticks nothing may hold on to a
        connection that has ended."""
        paused: list[Connection] = []
        for number, (connection, vigil) in enumerate(list(self._vigils.items()), 1):
            if connection.gone:
                del self._vigils[connection]
            elif self._look_at_safely(connection, vigil):
                paused.append(connection)
            if number % SLICE == 0:
                await trio.lowlevel.checkpoint()
        self._ask_the_kernel(paused)

    def _look_at_safely(self, connection: Connection, vigil: Vigil) -> bool:
        """`_look_at`, whose failure costs this connection and no other one."""
        try:
            return self._look_at(connection, vigil)
        except Exception as exc:
            log.exception("looking after a connection failed; this is a bug in trio_ws")
            connection.lose(exc)
            return False

    def _look_at(self, connection: Connection, vigil: Vigil) -> bool:
        """Whether the kernel is to be asked about it."""
        if connection.closing:
            return False  # the closer has its own clock
        connection.reader.attend()
        if connection.closing:
            return False
        verdict = vigil.tick(trio.current_time(), signs_of(connection, vigil), self._tick)
        if verdict is not Verdict.NOTHING:
            self._carry_out(verdict, connection, vigil)
        return connection.closed is None and connection.reader.paused()

    def _carry_out(self, verdict: Verdict, connection: Connection, vigil: Vigil) -> None:
        timeout = self._limits.ping_timeout
        if verdict is Verdict.PING:
            if vigil.ping is not None:  # perhaps never answered: a peer must not make us keep them
                connection.pings.forget(vigil.ping)
            vigil.ping = connection.queue_ping()
        elif verdict is Verdict.NO_LIFE:
            connection.give_up(TimeoutError(f"no sign of life within {timeout} s of a ping"))
        elif verdict is Verdict.NO_PROGRESS:
            connection.give_up(ReadsNothing(f"the peer has read nothing for {timeout} s"))
        elif verdict is Verdict.IDLE:
            connection.start_close(1001, "idle timeout")
        elif verdict is Verdict.TOO_OLD:
            connection.start_close(1001, "maximum lifetime reached")
        else:
            connection.lose()

    def _ask_the_kernel(self, paused: list[Connection]) -> None:
        """Whether the peers of sockets that we may not read are still there."""
        if not paused or not hasattr(select, "poll"):
            return
        poll = select.poll()
        asked: dict[int, Connection] = {}
        for connection in paused:
            number = connection.fileno()
            if number >= 0:
                poll.register(number, _HALF_CLOSED)
                asked[number] = connection
        for number, events in poll.poll(0):
            connection = asked[number]
            if events & _HUNG_UP:
                connection.give_up(ConnectionResetError("the peer has hung up"))
            elif connection.reader.waiters:  # only who waits for the end must hear of it now
                connection.lose()


def signs_of(connection: Connection, vigil: Vigil) -> Signs:
    """Read what the hot path has left."""
    reader, writer = connection.reader, connection.writer
    signs = Signs(
        bytes_in=reader.bytes_in,
        moved=writer.moved,
        written=writer.outbox.written,
        spoken=connection.spoken,
        composing=writer.composing,
        paused=reader.paused() and not reader.driving,
        waiting=writer.outbox.size > 0,
        unacknowledged=connection.unacknowledged() if vigil.unanswered else 0,
        eof=reader.eof,
    )
    writer.moved, writer.pressed = False, writer.blocked
    return signs
