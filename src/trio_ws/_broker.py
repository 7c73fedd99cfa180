"""Brokers: what carries a room's messages from process to process, and remembers the last ones.

Lives here: the interface, the ids, the broker of one process. Must never live here: connections,
rooms, or a broker that needs another package (`redis` has its own module).

An id is two numbers, ``"1718000000000-7"``, ordered as numbers: when the record began or a message
was written (milliseconds since 1970), and a count. Ids of a room only grow, also over restarts, so
a reader that drops what is not above the last id it saw sees each message once.
"""

from __future__ import annotations

import re
import time
from abc import ABC, abstractmethod
from collections import deque
from contextlib import asynccontextmanager
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

__all__ = ["Broker", "BrokerError", "Id", "MemoryBroker", "checked_message", "read_id_untrusted"]

Message: TypeAlias = "str | bytes"
Record: TypeAlias = "tuple[str, str | bytes]"

Id: TypeAlias = "tuple[int, int]"
"""An id as it is compared."""

BEGINNING: Id = (0, 0)
"""Before every message: ``after="0"`` asks for all that is kept."""

_id = re.compile(r"([0-9]{1,19})(?:-([0-9]{1,19}))?")


class BrokerError(Exception):
    """The broker cannot be reached, or did not answer. Of a message that was being published it is
    not known whether it was written; publishing it again with the same ``token`` is safe."""


def read_id_untrusted(text: str) -> Id:
    """The two numbers of an id; ValueError if it is none. A page may send what it likes."""
    found = _id.fullmatch(text)
    if found is None:
        raise ValueError(f"not the id of a message: {text[:80]!r}")
    return int(found[1]), int(found[2] or 0)


def checked_message(message: str | bytes | bytearray | memoryview) -> Message:
    """The message, no more to be changed.

    Raises:
        TypeError: it is none.
        ValueError: text with a lone surrogate, which UTF-8 cannot carry.
    """
    if isinstance(message, str):
        message.encode()
        return message
    if isinstance(message, bytes | bytearray | memoryview):
        return bytes(message)
    raise TypeError(f"a message is str or bytes-like, not {type(message).__name__}")


class Broker(ABC):
    """Carries the messages of rooms, and remembers the last ones of each. Three methods.

    Messages of one room have one order, the same for every subscriber; ids grow in it. Delivery is
    at least once: a reader drops ids that are not above the last one it saw.
    """

    @abstractmethod
    async def publish(
        self,
        room: str,
        message: str | bytes | bytearray | memoryview,
        *,
        token: str | None = None,
    ) -> str:
        """Write a message.

        Args:
            token: a name of this message. Published again with the same token, it is the same
                message and not written twice; for retries after a `BrokerError`.

        Returns:
            The message's id.

        Raises:
            BrokerError: at once, if the broker is away.
            TypeError, ValueError: as `WebSocket.send`.

        Cancelled: not known whether it was written.
        """

    @abstractmethod
    def subscribe(
        self, room: str, after: str | None = None
    ) -> AbstractAsyncContextManager[trio.abc.ReceiveChannel[Record]]:
        """Read a room's messages as pairs of id and message, for as long as the block::

            async with broker.subscribe("lobby") as messages:
                async for id, message in messages:
                    ...

        Args:
            after: begin behind the message of this id, or with the oldest one kept if that is
                newer; ``"0"`` for all that is kept. None: with the next one published.

        Raises:
            ValueError: `after` is no id.
            BrokerError: on entering, if the broker is away. Later the channel waits until it is
                back and goes on where it was.

        Cancelled while receiving: no message is lost.
        """

    @abstractmethod
    async def history(self, room: str, n: int) -> list[Record]:
        """The last `n` messages kept, at most, oldest first, as pairs of id and message.

        Raises:
            BrokerError: the broker is away.

        Cancelled: nothing has happened.
        """


class _Ring:
    """The last messages of one room, and who waits for the next one."""

    __slots__ = ("newest", "readers", "records", "tokens", "waiting")

    def __init__(self, newest: Id) -> None:
        self.newest = newest
        self.readers = 0
        self.records: deque[tuple[Id, Message, str | None]] = deque()
        self.tokens: dict[str, Id] = {}
        self.waiting = trio.lowlevel.ParkingLot()

    def after(self, last: Id) -> tuple[Id, Message] | None:
        """The oldest record kept behind `last`."""
        records = self.records
        if not records or self.newest <= last:
            return None
        # Counts are consecutive: no search.
        behind = last[1] + 1 - records[0][0][1] if last[0] == self.newest[0] else 0
        number, message, _ = records[max(behind, 0)]
        return number, message


class MemoryBroker(Broker):
    """The broker of one process: a bounded ring of messages for each room."""

    def __init__(self, *, keep: int = 1000) -> None:
        """
        Args:
            keep: messages remembered of each room. A subscriber that falls further behind misses
                the ones in between.

        Raises:
            ValueError: `keep` is less than 1.
        """
        if keep < 1:
            raise ValueError("keep at least one message: it is what subscribers read")
        self._keep = keep
        # In every id: a page that comes back after a restart with an old one gets all of the new.
        self._born = time.time_ns() // 1_000_000
        self._rings: dict[str, _Ring] = {}

    def _ring(self, room: str) -> _Ring:
        ring = self._rings.get(room)
        if ring is None:
            ring = self._rings[room] = _Ring((self._born, 0))
        return ring

    async def publish(
        self,
        room: str,
        message: str | bytes | bytearray | memoryview,
        *,
        token: str | None = None,
    ) -> str:
        """See `Broker.publish`. Never fails. Tokens are remembered as long as their messages."""
        message = checked_message(message)
        await trio.lowlevel.checkpoint()
        ring = self._ring(room)
        if token is not None and (known := ring.tokens.get(token)) is not None:
            return _text(known)
        ring.newest = number = (self._born, ring.newest[1] + 1)
        ring.records.append((number, message, token))
        if token is not None:
            ring.tokens[token] = number
        if len(ring.records) > self._keep:
            _, _, forgotten = ring.records.popleft()
            if forgotten is not None:
                del ring.tokens[forgotten]
        ring.waiting.unpark_all()
        return _text(number)

    @asynccontextmanager
    async def subscribe(
        self, room: str, after: str | None = None
    ) -> AsyncIterator[trio.abc.ReceiveChannel[Record]]:
        """See `Broker.subscribe`."""
        last = None if after is None else read_id_untrusted(after)
        await trio.lowlevel.checkpoint()
        ring = self._ring(room)
        ring.readers += 1
        channel = _Reading(ring, ring.newest if last is None else last)
        try:
            yield channel
        finally:
            channel.close()
            ring.readers -= 1
            if not ring.readers and not ring.records:
                del self._rings[room]

    async def history(self, room: str, n: int) -> list[Record]:
        """See `Broker.history`."""
        await trio.lowlevel.checkpoint()
        ring = self._rings.get(room)
        if ring is None:
            return []
        first = max(len(ring.records) - max(n, 0), 0)
        return [
            (_text(number), message) for number, message, _ in islice(ring.records, first, None)
        ]


class _Reading(trio.abc.ReceiveChannel["tuple[str, str | bytes]"]):
    """A subscriber's position in a ring: it holds no messages."""

    def __init__(self, ring: _Ring, last: Id) -> None:
        self._ring = ring
        self._last = last
        self._closed = False

    async def receive(self) -> Record:
        await trio.lowlevel.checkpoint()
        while not self._closed:
            found = self._ring.after(self._last)
            if found is not None:
                self._last, message = found
                return _text(self._last), message
            await self._ring.waiting.park()
        raise trio.ClosedResourceError("this subscription has ended")

    def close(self) -> None:
        self._closed = True
        self._ring.waiting.unpark_all()

    async def aclose(self) -> None:
        self.close()
        await trio.lowlevel.checkpoint()


def _text(number: Id) -> str:
    return f"{number[0]}-{number[1]}"
