"""The chat's words: what a page may send, and what it is told.

Lives here: reading and writing events, and what is wrong with bad ones. Must never live here: I/O,
or a decision that depends on who else is in a room.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import time
import unicodedata
from dataclasses import dataclass
from typing import Any

MAX_TEXT = 2000  # characters of one message
MAX_NICKNAME = 64  # characters

Event = dict[str, Any]

_id = re.compile(r"[1-9][0-9]{0,14}-[0-9]{1,15}")
_token = re.compile(r"[A-Za-z0-9-]{8,64}")


class BadEvent(Exception):
    """What the peer sent is no event of our protocol; the text tells them why."""


class Refused(Exception):
    """This nickname cannot be had; the text is meant for the person who asked for it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """What a "join" asks for.

    Attributes:
        proof: a digest of the page's secret: who comes back with the same one is the same page.
        after: the id of the last message the page has seen.
    """

    nickname: str
    proof: str
    after: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Saying:
    """What a "say" says; who sends the same token again says it once."""

    text: str
    token: str | None


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


def say_untrusted(event: Event) -> Saying:
    """Return what a "say" event says, or raise `BadEvent`."""
    text, token = event.get("text"), event.get("token")
    if event["type"] != "say" or not isinstance(text, str):
        raise BadEvent('expected {"type": "say", "text": "..."}')
    text = text.strip()
    if not 1 <= len(text) <= MAX_TEXT:
        raise BadEvent(f"a message has 1 to {MAX_TEXT} characters")
    return Saying(text=text, token=token if _matches(_token, token) else None)


def wish_untrusted(event: Event) -> Wish:
    """Return what a "join" event asks for; `BadEvent`, or `Refused` because of the nickname."""
    if event["type"] != "join":
        raise BadEvent('expected {"type": "join", "nickname": "..."} first')
    client, after = event.get("client"), event.get("after")
    if not isinstance(client, str) or not client.isascii() or not 16 <= len(client) <= 64:
        client = secrets.token_hex(16)  # without a good secret of its own, nobody can replace it
    return Wish(
        nickname=clean_nickname(event.get("nickname")),
        # A digest, because other processes are told it, and the secret is nobody's business.
        proof=hashlib.sha256(client.encode()).hexdigest()[:32],
        after=after if _matches(_id, after) else None,
    )


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


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


def with_id(number: str, message: str | bytes) -> str:
    """A message of the broker's, as pages get it: they come back with the last id they saw."""
    return json.dumps(json.loads(message) | {"id": number})


def event(kind: str, **fields: object) -> str:
    """Return an event as it is sent."""
    return json.dumps({"type": kind, **fields})


def now() -> int:
    """Milliseconds since 1970, as JavaScript counts."""
    return time.time_ns() // 1_000_000


def numbers(number: str) -> tuple[int, int]:
    """The id of a message, as ids are ordered."""
    first, _, second = number.partition("-")
    return int(first), int(second)


def just_before(number: str) -> str:
    """An id between this one and every earlier one."""
    first, second = numbers(number)
    return f"{first}-{second - 1}" if second else f"{first - 1}-{10**15}"
