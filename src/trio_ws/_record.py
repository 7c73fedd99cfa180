"""A room's record in Redis: its keys, its fields, the one step that writes.

Lives here: what is in Redis, and what it means. Must never live here: talking to Redis (`redis`),
or anything that waits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

TOKEN_LIFETIME = 600
"""Seconds in which publishing again with the same token is recognised."""

# One step for Redis, also for its append-only file: a message that was written is known by its
# token, its record lives on, and its bell is rung.
PUBLISH = """
if ARGV[1] ~= '' then
  local known = redis.call('GET', KEYS[2])
  if known then return known end
end
local id = redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], '*', ARGV[3], ARGV[4])
if ARGV[8] ~= '' then
  redis.call('PEXPIRE', KEYS[1], ARGV[8])
else
  redis.call('PERSIST', KEYS[1])
end
if ARGV[1] ~= '' then redis.call('SET', KEYS[2], id, 'EX', ARGV[5]) end
redis.call('PUBLISH', ARGV[6], ARGV[7])
return id
"""


def record_key(prefix: str, room: str) -> str:
    """The stream of a room."""
    return f"{prefix}:{{{room}}}"  # in braces: a cluster keeps a room in one place


def room_of(prefix: str, key: bytes) -> str:
    """The room whose stream it is."""
    return key.decode()[len(prefix) + 2 : -1]


def field_of(message: str | bytes) -> tuple[str, bytes]:
    """The one field of a message's entry: its name says what kind it is."""
    return ("t", message.encode()) if isinstance(message, str) else ("b", message)


def records_of(entries: Iterable[Any]) -> list[tuple[str, str | bytes]]:
    """What Redis has, as messages; entries of others in the stream are passed over."""
    records: list[tuple[str, str | bytes]] = []
    for entry in entries:
        fields = entry.field_values
        if b"t" in fields:
            records.append((id_of(entry.identifier), fields[b"t"].decode("utf-8", "replace")))
        elif b"b" in fields:
            records.append((id_of(entry.identifier), fields[b"b"]))
    return records


def id_of(value: object) -> str:
    """An id, as Redis says it."""
    return value.decode() if isinstance(value, bytes) else str(value)
