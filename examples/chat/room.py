"""The chat's rooms: who is in them, what was said last, and who hears what.

Lives here: values and rules, and not one `await`: a room never waits for anybody.
Must never live here: tasks, sockets, text that was not looked at.
"""

from __future__ import annotations

import hmac
import json
import time
import unicodedata
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from member import Member

HISTORY = 50  # messages a newcomer is shown
MAX_NICKNAME = 64  # characters
MAX_ROOMS = 1000  # beyond it, the empty room that was entered longest ago is forgotten

Event = dict[str, Any]


class Refused(Exception):
    """This nickname cannot be had; the text is meant for the person who asked for it."""


def clean_nickname(wanted: object) -> str:
    """Return the nickname as it will be shown, or raise `Refused` saying what is wrong with it."""
    if not isinstance(wanted, str):
        raise Refused("a nickname must be text")
    nickname = " ".join(unicodedata.normalize("NFKC", wanted).split())
    if not 1 <= len(nickname) <= MAX_NICKNAME:
        raise Refused(f"a nickname has 1 to {MAX_NICKNAME} characters")
    # Control characters, and those that hide text or turn it around. Markup is welcome: the page
    # shows every nickname as text.
    if any(unicodedata.category(letter) in {"Cc", "Cf", "Co", "Cs"} for letter in nickname):
        raise Refused("a nickname cannot hold invisible characters")
    return nickname


class Room:
    """The members of one room and the last messages said in it."""

    def __init__(self) -> None:
        self._members: dict[str, Member] = {}  # by nickname, upper and lower case alike
        self._history: deque[Event] = deque(maxlen=HISTORY)
        self._last_id = (0, 0)

    @property
    def members(self) -> list[str]:
        """The nicknames, in the order of arrival."""
        return [member.nickname for member in self._members.values()]

    def join(self, member: Member) -> None:
        """Add `member`: they hear "welcome", the others "joined". `Refused` if the name is taken.

        A connection that died unnoticed keeps its nickname until the server finds out. So whoever
        returns with the same secret takes the old one's place, and nobody is told: nobody left.
        """
        key = member.nickname.casefold()
        old = self._members.get(key)
        if old is None:
            self.publish({"type": "joined", "nickname": member.nickname, "at": now()})
        elif hmac.compare_digest(old.client, member.client):
            member.nickname = old.nickname
            old.end(4001, "you went on in another window")
        else:
            raise Refused("this nickname is taken, please choose another")
        self._members[key] = member
        welcome: Event = {"type": "welcome", "nickname": member.nickname, "members": self.members}
        member.offer(json.dumps(welcome | {"history": list(self._history)}))

    def leave(self, member: Member) -> None:
        """Remove `member` and tell the others. Nothing happens if they are gone or replaced."""
        key = member.nickname.casefold()
        if self._members.get(key) is member:
            del self._members[key]
            self.publish({"type": "left", "nickname": member.nickname, "at": now()})

    def say(self, member: Member, text: str) -> None:
        """Publish a message, and keep it for those who join later."""
        at, (last, number) = now(), self._last_id
        self._last_id = (at, 0) if at > last else (last, number + 1)
        message: Event = {"type": "message", "id": "{}-{}".format(*self._last_id), "at": at}
        message |= {"from": member.nickname, "text": text}
        self._history.append(message)
        self.publish(message)

    def publish(self, event: Event) -> None:
        """Offer `event` to every member. Who cannot keep up is put out, never waited for."""
        events = deque([event])
        while events:
            text = json.dumps(events.popleft())
            for key, member in list(self._members.items()):
                if not member.offer(text):
                    del self._members[key]
                    member.end(1013, "you fell too far behind")
                    events.append({"type": "left", "nickname": member.nickname, "at": now()})


class Lobby:
    """Every room by its name. A room needs no opening; an empty one keeps its history a while."""

    def __init__(self) -> None:
        self._rooms: OrderedDict[str, Room] = OrderedDict()

    def room(self, name: str) -> Room:
        """Return the room of that name, made on first use."""
        if name not in self._rooms and len(self._rooms) >= MAX_ROOMS:
            empty = (name for name, room in self._rooms.items() if not room.members)
            self._rooms.pop(next(empty, ""), None)
        room = self._rooms.setdefault(name, Room())
        self._rooms.move_to_end(name)
        return room


def now() -> int:
    """Milliseconds since 1970, as JavaScript counts."""
    return time.time_ns() // 1_000_000
