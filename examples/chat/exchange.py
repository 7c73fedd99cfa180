"""What the processes of one chat tell each other beside messages, through the broker they share.

Lives here: saying and hearing who is here, noticing that the broker is away. Must never live here:
what follows from it (`presence.py`, `lobby.py`). A chat in one process does without this file.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from trio_ws import BrokerError

if TYPE_CHECKING:
    from collections.abc import Callable

    from presence import Presence
    from room import ChatRoom

    from trio_ws import Broker

BEAT = 2.0  # seconds between two words about who is here
PAUSE = 0.1  # seconds between any two: a hundred people who come at once are one change
LOOK_BACK = 200  # words: those of a beat, of all processes
PATIENCE = 2.0  # seconds in which a healthy broker answers
LOOK = 1.0  # seconds between two looks at its health


async def hear_everybody(room: ChatRoom, broker: Broker) -> str:
    """Know who is here in other processes; return where `share` goes on. `BrokerError`."""
    words = await broker.history(_channel(room), LOOK_BACK)
    for _, word in words:
        room.presence.hear(word, old=True)
    return words[-1][0] if words else "0"


async def share(room: ChatRoom, broker: Broker, after: str) -> None:
    """Keep knowing that, and let the others know who is here, until cancelled."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_listen, broker, _channel(room), room.presence, after)
        nursery.start_soon(_speak, broker, _channel(room), room.presence)


async def say_goodbye(room: ChatRoom, broker: Broker) -> None:
    """Let the others know that nobody is here any more; at worst they find out."""
    if not room.presence.frozen:
        with suppress(BrokerError):
            await broker.publish(_channel(room), room.presence.word(beat=False))


def _channel(room: ChatRoom) -> str:
    return f"{room.room.name}.here"  # no room of ours has a dot in its name


async def _listen(broker: Broker, name: str, presence: Presence, after: str) -> None:
    while True:
        with suppress(BrokerError):
            async with broker.subscribe(name, after=after) as words:
                async for number, word in words:
                    after = number
                    presence.hear(word)
        await trio.sleep(LOOK)


async def _speak(broker: Broker, name: str, presence: Presence) -> None:
    next_beat = trio.current_time()
    while not presence.frozen:
        beat = trio.current_time() >= next_beat
        if beat:
            next_beat = trio.current_time() + BEAT
        presence.changed = trio.Event()
        with suppress(BrokerError):  # the next one says it all again
            await broker.publish(name, presence.word(beat=beat))
        await trio.sleep(PAUSE)
        with trio.move_on_at(next_beat):
            await presence.changed.wait()


async def watch(broker: Broker, tell: Callable[[bool], None]) -> None:
    """Look at the broker's health, for ever; `tell` whether it is in trouble when that changes."""
    trouble = False
    while True:
        try:
            with trio.fail_after(PATIENCE):
                await broker.history("health", 1)
        except (BrokerError, trio.TooSlowError):
            found = True
        else:
            found = False
        if found != trouble:
            trouble = found
            tell(found)
        await trio.sleep(LOOK)
