"""Draining a server: its polite end, in which nobody new is let in and everybody is told.

Lives here: when each connection is told, and when patience ends. Must never live here: how
listeners stop (`_accepting`), handshakes are turned away (`_opening`), connections close
(`_connection`).

A drain is a task beside the connections, so it goes on if whoever asked for it is cancelled, and it
ends with the server if that is cancelled: `cancel_grace` counts then. The task tells every
connection, then only waits for its deadline; if all is over before that, the server ends, and this
task with it.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from ._life import Lives

__all__ = ["Drain"]

log = logging.getLogger("trio_ws.server")

SLICE = 100
"""Connections closed between two checkpoints where there is no time to spread them over: a few
milliseconds."""


class Drain:
    """The drain of one server."""

    def __init__(self, lives: Lives, grace: float, spread: float) -> None:
        self._lives = lives
        self._patience = trio.CancelScope(deadline=trio.current_time() + grace)
        self._spread_end = trio.current_time() + spread
        self._hurry = trio.Event()

    def join(self, grace: float, spread: float) -> None:
        """Somebody else wants the same; the earlier end counts, of the grace and of the spread."""
        now = trio.current_time()
        self._patience.deadline = min(self._patience.deadline, now + grace)
        if now + spread < self._spread_end:
            self._spread_end = now + spread
            self._hurry.set()

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Tell everybody; then wait until the server has ended, or end it when time is up."""
        lives = self._lives
        assert lives.farewell is not None
        log.info("draining: %d connections are open", len(lives.open))
        with self._patience:
            await self._close_all()
            await trio.sleep_forever()
        lives.close_what_is_left(*lives.farewell)
        log.info("the grace of the drain is over: %d connections were cut off", len(lives.left))
        lives.stop()

    async def _close_all(self) -> None:
        """Begin the closing handshake of every connection: of the first at once, of the last at the
        end of the spread. Those that open meanwhile are closed as they open."""
        lives = self._lives
        assert lives.farewell is not None
        waiting = deque(lives.open.values())
        while waiting:
            connection = waiting.popleft()
            if not connection.closing:
                connection.start_close(*lives.farewell)
                await self._pause(len(waiting))

    async def _pause(self, waiting: int) -> None:
        while waiting:
            delay = (self._spread_end - trio.current_time()) / waiting
            if delay <= 0:
                if waiting % SLICE == 0:
                    await trio.lowlevel.checkpoint()
                return
            self._hurry = trio.Event()
            with trio.move_on_after(delay) as pause:
                await self._hurry.wait()
            if pause.cancelled_caught:
                return
