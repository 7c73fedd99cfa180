"""A chat room: the WebSocket and its page on one port. Run it and open the address it prints.

Lives here: the life of a connection, the policy, the command line. Must never live here: the rules
of a room (`room.py`), the page's files (`pages.py`).
"""

from __future__ import annotations

import argparse
import json
import secrets
import signal
from functools import partial

import trio
from member import Member
from pages import NOT_FOUND, ROOM_NAME, pages
from room import Event, Lobby, Refused, Room, clean_nickname

from trio_ws import Limits, Policy, Response, Routes, Server, UpgradeRequest, WebSocket, serve

MAX_TEXT = 2000  # characters of one message
JOIN_WITHIN = 30.0  # seconds: a connection that never joins is a seat that nobody sits on
GRACE, SPREAD = 10.0, 1.0  # seconds: a drain takes at most, and takes to tell everybody
LIMITS = Limits(max_message=32 * 1024)  # bytes: MAX_TEXT fits, however its JSON is escaped

lobby = Lobby()


class BadEvent(Exception):
    """What the peer sent is no event of our protocol; the text tells them why."""


def parse_untrusted(message: str | bytes) -> Event:
    """Read one event of a peer: a JSON object with a "type", or `BadEvent`."""
    if isinstance(message, bytes):
        raise BadEvent("this chat speaks text messages only")
    try:
        event = json.loads(message)
    except (ValueError, RecursionError):
        raise BadEvent("not JSON") from None
    if not isinstance(event, dict) or not isinstance(event.get("type"), str):
        raise BadEvent('not a JSON object with a "type"')
    return event


def say_untrusted(event: Event) -> str:
    """Return the text of a "say" event, or raise `BadEvent`."""
    text = event.get("text")
    if event["type"] != "say" or not isinstance(text, str):
        raise BadEvent('expected {"type": "say", "text": "..."}')
    text = text.strip()
    if not 1 <= len(text) <= MAX_TEXT:
        raise BadEvent(f"a message has 1 to {MAX_TEXT} characters")
    return text


def member_untrusted(event: Event) -> Member:
    """Return the member that a "join" event describes, or raise `Refused`."""
    client = event.get("client")
    if not isinstance(client, str) or not client.isascii() or not 16 <= len(client) <= 64:
        client = secrets.token_hex(16)  # without a good secret of its own, nobody can replace it
    return Member(clean_nickname(event.get("nickname")), client)


def error(text: object) -> str:
    """Return the event that tells one member what was wrong."""
    return json.dumps({"type": "error", "text": str(text)})


async def join_as(ws: WebSocket) -> Member:
    """Wait for a "join"; `Refused` if its nickname will not do."""
    while True:
        try:
            event = parse_untrusted(await ws.receive())
            if event["type"] != "join":
                raise BadEvent('expected {"type": "join", "nickname": "..."} first')
            return member_untrusted(event)
        except BadEvent as bad:
            await ws.send(error(bad))


async def listen(ws: WebSocket, room: Room, member: Member) -> None:
    """Publish what the member says until their connection ends."""
    async for message in ws:
        try:
            room.say(member, say_untrusted(parse_untrusted(message)))
        except BadEvent as bad:
            if not member.offer(error(bad)):
                member.end(1013, "you fell too far behind")
        # One message a turn: who types fastest must not fill the backlogs of the others.
        await trio.lowlevel.checkpoint()


async def chat(ws: WebSocket) -> None:
    """Serve one connection to one room. The server closes it: there is nothing to clean up."""
    try:
        with trio.fail_after(JOIN_WITHIN):
            member = await join_as(ws)
        room = lobby.room(ws.request.params["room"])
        room.join(member)
    except trio.TooSlowError:
        await ws.close(4000, "nobody joined in time")
        return
    except Refused as refusal:
        await ws.close(4000, str(refusal))
        return
    try:
        with member.scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(member.deliver, ws)
                await listen(ws, room, member)
                nursery.cancel_scope.cancel()
    finally:
        room.leave(member)
    if member.ending is not None:  # put out by the room: too slow, or replaced
        await ws.close(*member.ending)


def room_name_is_good(request: UpgradeRequest) -> Response | None:
    """Refuse rooms that the page could not link to."""
    return None if ROOM_NAME.fullmatch(request.params.get("room", "")) else NOT_FOUND


async def main(host: str, port: int) -> None:
    """Serve until SIGINT cancels or SIGTERM drains; both tell every page 1001, "going away"."""
    policy = Policy(checks=(room_name_is_good,))
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            routes = Routes({"/chat/{room}": chat})
            start = partial(serve, routes, port, host=host, policy=policy, limits=LIMITS)
            server: Server = await nursery.start(partial(start, http=pages))
            shown = f"[{host}]" if ":" in host else host
            print(f"listening on http://{shown}:{server.port}", flush=True)
            async for signum in signals:
                if signum == signal.SIGTERM:  # a deploy: the pages come back, not all at once
                    await server.drain(GRACE, spread=SPREAD)
                    return
                nursery.cancel_scope.cancel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A chat room with its page on the same port.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="0: any (%(default)s)")
    args = parser.parse_args()
    trio.run(main, args.host, args.port)
