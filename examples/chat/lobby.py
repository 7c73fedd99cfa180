"""Every room that somebody is in, and what goes on beside its members in this process.

Lives here: opening and closing rooms, telling them how the broker is. Must never live here: what a
room is (`room.py`), what other processes say (`exchange.py`).
"""

from __future__ import annotations

from collections import OrderedDict
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

import trio
from events import event
from exchange import hear_everybody, say_goodbye, share, watch
from room import ChatRoom

from trio_ws import Broker, BrokerError, MemoryBroker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

KEEP = 500  # messages of a room that an in-process broker remembers, for those who come back
MAX_ROOMS = 1000  # of them; beyond it, the room that was entered longest ago is forgotten

TROUBLE = event("trouble", text="Messages cannot be delivered at the moment.")
HEALED = event("healed")


class Brokers(NamedTuple):
    """What several processes share: `record` keeps what is said in rooms, `words` hardly keeps what
    the processes tell each other."""

    record: Broker
    words: Broker


class Lobby:
    """The rooms by their names. `shared` with other processes; None: there are none."""

    def __init__(self, process: str, shared: Brokers | None, rate: float) -> None:
        self.process = process
        self.rate = rate  # messages a second that one member may write
        self.rooms: dict[str, ChatRoom] = {}
        self.evicted = 0  # members that were too slow, in rooms that are closed
        self.trouble = False  # the broker is away
        self._shared = shared
        self._own: OrderedDict[str, MemoryBroker] = OrderedDict()
        self._frozen = False
        self._nursery: trio.Nursery

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep rooms open, until cancelled."""
        async with trio.open_nursery() as self._nursery:
            if self._shared is not None:
                self._nursery.start_soon(watch, self._shared.record, self._tell_trouble)
            task_status.started()
            await trio.sleep_forever()

    def _tell_trouble(self, trouble: bool) -> None:
        self.trouble = trouble
        for room in self.rooms.values():
            room.room.publish(TROUBLE if trouble else HEALED)

    async def _keep_open(self, room: ChatRoom) -> None:
        words = self._shared and self._shared.words
        try:
            async with room.room:
                after = await hear_everybody(room, words) if words else ""
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(room.put_out_the_slow)
                    if words:
                        nursery.start_soon(share, room, words, after)
                    room.opened.set()
                    await room.empty.wait()
                    nursery.cancel_scope.cancel()
                if words:
                    await say_goodbye(room, words)
        except BrokerError as error:
            room.error = error
            room.opened.set()
        self.evicted += room.room.stats().evicted

    def _broker_of(self, name: str) -> Broker:
        if self._shared is not None:
            return self._shared.record
        while len(self._own) >= MAX_ROOMS and name not in self._own:
            self._own.popitem(last=False)
        self._own.setdefault(name, MemoryBroker(keep=KEEP))
        self._own.move_to_end(name)
        return self._own[name]

    @asynccontextmanager
    async def enter(self, name: str) -> AsyncIterator[ChatRoom]:
        """Keep a room open for as long as the block. `BrokerError` if its broker is away."""
        if name not in self.rooms:
            self.rooms[name] = ChatRoom(name, self._broker_of(name), self.process)
            self.rooms[name].presence.frozen = self._frozen
            self._nursery.start_soon(self._keep_open, self.rooms[name])
        room = self.rooms[name]
        room.visitors += 1
        try:
            await room.opened.wait()
            if room.error is not None:
                raise BrokerError("this room cannot be opened now") from room.error
            yield room
        finally:
            room.visitors -= 1
            if not room.visitors:
                if self.rooms.get(name) is room:
                    del self.rooms[name]
                room.empty.set()

    def freeze(self) -> None:
        """This process ends. Who is in it turns up in another, or comes back: nobody leaves."""
        self._frozen = True
        for room in self.rooms.values():
            room.presence.frozen = True
