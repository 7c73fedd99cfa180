"""One room that somebody is in: the library's `Room`, with a history and with seats.

Lives here: what a newcomer and somebody who comes back are shown, who hears of whom. Must never
live here: one connection's life (`conversation.py`), which rooms there are (`lobby.py`).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import trio
from events import Event, event, just_before, now, numbers, with_id
from presence import Presence, Seat

from trio_ws import Room

if TYPE_CHECKING:
    from trio_ws import Broker, BrokerError, Member

HISTORY = 50  # messages a newcomer is shown


class ChatRoom:
    """A room that somebody is in: the library's room, with a history and with seats."""

    def __init__(self, name: str, broker: Broker, process: str) -> None:
        self.room = Room(name, broker=broker, wrap=with_id)
        self.presence = Presence(process, self._tell_all)
        self.opened, self.empty = trio.Event(), trio.Event()
        self.error: BrokerError | None = None  # why it could not be opened
        self.visitors = 0
        self._broker = broker

    def _tell_all(self, kind: str, nickname: str) -> None:
        self.room.publish(event(kind, nickname=nickname, at=now()))

    def tell_changes(self, member: Member, told: list[str]) -> None:
        """Tell one member how things have changed since it was told that `told` are here."""
        others, here = [one for one in self.room.members if one is not member], self.presence
        for kind, more, less in (("left", told, here.nicknames), ("joined", here.nicknames, told)):
            for nickname in more:
                if nickname not in less:
                    self.room.publish(event(kind, nickname=nickname, at=now()), exclude=others)

    async def put_out_the_slow(self) -> None:
        """Free the seats of those that the library disconnects: they need not have noticed yet."""
        with self.room.presence() as changes:
            async for change in changes:
                for member in change.left:
                    if isinstance(member.context, Seat):
                        member.context.end(1013, "you fell too far behind")

    async def beginning(self, after: str | None) -> tuple[str, list[Event]]:
        """Where to go on reading, and what to show before that. A page that has seen `after` goes
        on there, if that is kept still: then so is all that came later, and it misses nothing."""
        name, broker = self.room.name, self._broker
        if after is not None:
            newest = await broker.history(name, 1)
            if newest and newest[-1][0] == after:
                return after, []
            if newest and numbers(newest[-1][0]) > numbers(after):
                async with broker.subscribe(name, after=just_before(after)) as records:
                    if (await records.receive())[0] == after:
                        return after, []
        history = await broker.history(name, HISTORY)
        return (history[-1][0] if history else "0"), [json.loads(with_id(*one)) for one in history]
