"""One person in one room: the events that wait for them, and the task that sends these.

Lives here: the bounded backlog between a room, which never waits, and a connection, which may have
to. Must never live here: what the events mean (`room.py`), or reading from the connection.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from trio_ws import WebSocket

BACKLOG = 256  # events: a burst fits, somebody who went away without a word does not


class Member:
    """A nickname and a backlog. Whoever has stopped reading delays nobody."""

    def __init__(self, nickname: str, client: str) -> None:
        self.nickname = nickname
        self.client = client  # the page's secret: proves that a returning connection is the same
        self.scope = trio.CancelScope()  # around everything that serves this member
        self.ending: tuple[int, str] | None = None  # code and reason, once `end` was called
        self._backlog: deque[str] = deque()
        self._arrived = trio.Event()

    def offer(self, event: str) -> bool:
        """Queue one event, without waiting; False if this member is too far behind for it."""
        if len(self._backlog) >= BACKLOG:
            return False
        self._backlog.append(event)
        self._arrived.set()
        return True

    def end(self, code: int, reason: str) -> None:
        """Stop serving this member, from outside and without waiting."""
        self.ending = (code, reason)
        self.scope.cancel()

    async def deliver(self, ws: WebSocket) -> None:
        """Send what was offered, for ever. A slow connection is waited for here, and only here."""
        while True:
            await self._arrived.wait()
            self._arrived = trio.Event()
            while self._backlog:
                await ws.send(self._backlog.popleft())
