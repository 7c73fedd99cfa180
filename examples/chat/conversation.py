"""The life of one connection to one room, from its "join" to its close.

Lives here: what happens in which order, and how fast one member may write. Must never live here:
what an event looks like (`events.py`), what a room is (`room.py`).
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import trio
from events import BadEvent, Refused, event, now, parse_untrusted, say_untrusted, wish_untrusted
from lobby import TROUBLE

from trio_ws import BrokerError

if TYPE_CHECKING:
    from events import Saying, Wish
    from lobby import Lobby
    from presence import Seat
    from room import ChatRoom

    from trio_ws import WebSocket

JOIN_WITHIN = 30.0  # seconds: a connection that never joins is a seat that nobody sits on
UNSENT = "Your message was not delivered."
AWAY = (1013, "the chat is out of order, please try again")


class Pace:
    """How fast one member may write: `rate` messages a second, and four seconds' worth at once."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._saved, self._at = 4 * rate, trio.current_time()

    def delay(self) -> float:
        """Seconds that the next message has to wait; call it once for each."""
        at = trio.current_time()
        self._saved = min(4 * self.rate, self._saved + (at - self._at) * self.rate) - 1
        self._at = at
        return max(0.0, -self._saved / self.rate)


async def join_as(ws: WebSocket) -> Wish:
    """Wait for a "join"; `Refused` if its nickname will not do."""
    while True:
        try:
            return wish_untrusted(parse_untrusted(await ws.receive()))
        except BadEvent as bad:
            await ws.send(event("error", text=str(bad)))


async def say(room: ChatRoom, seat: Seat, saying: Saying) -> bool:
    """Publish a message; False if that is not known to have worked."""
    claim = seat.claim
    fields = {"at": now(), "from": claim.nickname, **asdict(saying)}
    # Nobody else's token can be meant: the proof is in it.
    token = None if saying.token is None else f"{claim.proof}-{saying.token}"
    try:
        await room.room.broadcast(event("message", **fields), token=token)
    except BrokerError:
        return False
    return True


async def listen(ws: WebSocket, room: ChatRoom, seat: Seat, pace: Pace) -> None:
    """Publish what the member says until their connection ends."""
    told, stuck = False, None  # the token of what could not be said: nothing overtakes it
    async for message in ws:
        delay = pace.delay()
        if delay and not told:
            words = f"You write more than {pace.rate:g} messages a second: yours are held back."
            await ws.send(event("slow", text=words))
        told = delay > 0
        # Also a turn for the others: who types fastest must not fill their backlogs.
        await trio.sleep(delay)
        try:
            saying = say_untrusted(parse_untrusted(message))
        except BadEvent as bad:
            await ws.send(event("error", text=str(bad)))
            continue
        if stuck in {None, saying.token} and await say(room, seat, saying):
            stuck = None
        else:
            stuck = stuck or saying.token
            await ws.send(event("unsent", token=saying.token, text=UNSENT))


async def take_part(ws: WebSocket, lobby: Lobby, room: ChatRoom, seat: Seat, wish: Wish) -> None:
    """Be welcomed, catch up, listen and talk."""
    after, history = await room.beginning(wish.after)
    here = room.presence.nicknames
    welcome = {"nickname": seat.claim.nickname, "process": lobby.process, "members": here}
    await ws.send(event("welcome", **welcome, resumed=after == wish.after, history=history))
    async with room.room.join(ws, context=seat, after=after) as member:
        room.tell_changes(member, here)
        if lobby.trouble:
            await ws.send(TROUBLE)
        await listen(ws, room, seat, Pace(lobby.rate))


async def chat(lobby: Lobby, ws: WebSocket) -> None:
    """Serve one connection to one room. The server closes it: there is nothing to clean up."""
    try:
        with trio.fail_after(JOIN_WITHIN):
            wish = await join_as(ws)
    except trio.TooSlowError:
        await ws.close(4000, "nobody joined in time")
        return
    except Refused as refusal:
        await ws.close(4000, str(refusal))
        return
    try:
        async with lobby.enter(ws.request.params["room"]) as room:
            with room.presence.sit(wish.nickname, wish.proof) as seat:
                with seat.scope:
                    await take_part(ws, lobby, room, seat, wish)
        if seat.ending is not None:  # too slow, or another connection has the seat now
            await ws.close(*seat.ending)
    except Refused as refusal:
        await ws.close(4000, str(refusal))
    except BrokerError:
        await ws.close(*AWAY)
