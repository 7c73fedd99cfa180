"""One connection's membership in a room, and what waits for it while it falls behind.

Lives here: publications (a message and the frames made of it so far), the line of those that wait
for one connection, what happens to a member that falls behind. Must never live here: who is in a
room (`_rooms`), sockets, anything that waits.

The theory. A publication goes straight into the outbox if that takes it, and a service task writes
it. Else it waits as a *message*: nothing is lost to a compressor if it is dropped again. One `Line`
per connection numbers what waits, over all its rooms; senders get turns in the same line (see
`_writer`). So everything arrives in the order of the calls, a room with much to say cannot keep out
the member's own `send`, and dropping a message moves nobody.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from ._protocol import plain_frame
from ._websocket import internals

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._connection import Connection
    from ._protocol import Protocol
    from ._websocket import WebSocket

Overflow: TypeAlias = Literal["disconnect", "drop_oldest", "drop_newest"]

TOO_SLOW: Final = "too slow"
"""The reason of the Close that a member gets which falls behind (code 1013, try again later)."""

_COMPACT_FROM = 64


class Publication:
    """One message, and the frames made of it so far. Shared by all members it is for.

    Attributes:
        plain: the frame for connections without compression.
        size: of that frame, in bytes; what a backlog counts.
    """

    __slots__ = ("_frames", "_payload_size", "message", "plain", "size")

    def __init__(self, message: str | bytes | bytearray | memoryview) -> None:
        """TypeError: not a message. ValueError: text that UTF-8 cannot carry."""
        if isinstance(message, bytearray | memoryview):
            message = bytes(message)
        elif not isinstance(message, str | bytes):
            raise TypeError(f"a message is str or bytes-like, not {type(message).__name__}")
        self.message = message
        self.plain = plain_frame(message)
        self.size = len(self.plain)
        self._payload_size = len(message.encode()) if isinstance(message, str) else len(message)
        self._frames: dict[object, bytes] = {(): self.plain}

    def frame_for(self, protocol: Protocol) -> bytes:
        """Its frame on this connection, which must be sent now."""
        return protocol.encode_shared(self.message, self._payload_size, self._frames)


class Place:
    """A publication's place in a line; `publication` is None once it was dropped."""

    __slots__ = ("member", "number", "publication")

    def __init__(self, number: int, member: Member, publication: Publication) -> None:
        self.number = number
        self.member = member
        self.publication: Publication | None = publication


class Line:
    """What waits for one connection, over all its rooms; a `Feed` of its writer."""

    __slots__ = ("_connection", "_dropped", "_places", "_tail", "_turns")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._places: deque[Place] | None = None  # made when needed: an empty one takes 700 bytes
        self._dropped = 0
        self._tail = 0
        self._turns: list[int] = []

    def append(self, member: Member, publication: Publication) -> Place:
        """Have it wait behind everything."""
        if self._places is None:
            self._places = deque()
        place = Place(self._tail, member, publication)
        self._places.append(place)
        self._tail += 1
        self._connection.writer.fed = True
        return place

    def drop(self, place: Place) -> None:
        """It waits no more. Its place is cleared away at the latest when half of them are empty."""
        assert self._places is not None
        place.publication = None
        self._dropped += 1
        if self._places[0] is place:
            self._clear_head()
        elif self._dropped > max(_COMPACT_FROM, len(self._places) // 2):
            self._places = deque(place for place in self._places if place.publication is not None)
            self._dropped = 0

    def _clear_head(self) -> None:
        places = self._places
        while places and places[0].publication is None:
            places.popleft()
            self._dropped -= 1
        self._connection.writer.fed = bool(places)

    # -- the feed --------------------------------------------------------------------------------

    def enter(self) -> int:
        self._turns.append(self._tail)
        return self._tail

    def leave(self, turn: int) -> None:
        self._turns.remove(turn)

    def ahead(self, turn: int) -> bool:
        places = self._places
        return places[0].number < turn if places else False

    def pump(self) -> None:
        if not self._places:
            return
        takes = self._connection.writer.takes
        last = self._turns[0] if self._turns else self._tail
        while self._places and takes() and self._places[0].number < last:
            place = self._places.popleft()
            publication, place.publication = place.publication, None
            assert publication is not None
            self._clear_head()
            place.member._waited(publication)  # noqa: SLF001  a friend, in the same file


class Backlog:
    """What a room allows a member to have waiting, and what it does beyond that; also its books.

    Attributes:
        delivered, dropped, evicted: publications that entered an outbox, publications that were
            dropped, members that were disconnected, so far, over all members.
    """

    __slots__ = ("delivered", "dropped", "evicted", "max_bytes", "max_messages", "overflow")

    def __init__(self, overflow: Overflow, max_messages: int, max_bytes: int) -> None:
        if overflow not in ("disconnect", "drop_oldest", "drop_newest"):
            raise ValueError(
                f'overflow is "disconnect", "drop_oldest" or "drop_newest", not {overflow!r}'
            )
        if max_messages < 1 or max_bytes < 1:
            raise ValueError("a backlog holds one message and one byte at least")
        self.overflow: Overflow = overflow
        self.max_messages = max_messages
        self.max_bytes = max_bytes
        self.delivered = self.dropped = self.evicted = 0


class Member:
    """A connection in a room, from `Room.join`; for as long as that block.

    Attributes:
        dropped: messages of the room that this member was too slow for.
    """

    __slots__ = (
        "_backlog",
        "_connection",
        "_context",
        "_line",
        "_sent",
        "_waiting",
        "_waiting_bytes",
        "_ws",
        "dropped",
    )

    def __init__(self, ws: WebSocket, backlog: Backlog, context: object) -> None:
        connection, sent = internals(ws)
        feed = connection.writer.feed
        if feed is None:
            feed = connection.writer.feed = Line(connection)
        assert isinstance(feed, Line)
        self._ws = ws
        self._context = context
        self._connection = connection
        self._sent: Callable[[str | bytes], None] | None = sent
        self._line = feed
        self._backlog = backlog
        self._waiting: deque[Place] | None = None
        self._waiting_bytes = 0
        self.dropped = 0

    def __repr__(self) -> str:
        return f"<Member {self._ws!r} {self.backlog} waiting, {self.dropped} dropped>"

    @property
    def ws(self) -> WebSocket:
        """The connection."""
        return self._ws

    @property
    def context(self) -> object:
        """What `Room.join` was given: a nickname, say. Yours; never looked into."""
        return self._context

    @property
    def backlog(self) -> int:
        """Messages of the room that wait for this member."""
        return len(self._waiting) if self._waiting else 0

    @property
    def backlog_bytes(self) -> int:
        """The same in bytes."""
        return self._waiting_bytes

    def _deliver(self, publication: Publication) -> bool:
        """Let the room's message in, now or later, or not at all.

        Returns:
            False if the member has fallen behind and is being disconnected for it.
        """
        writer = self._connection.writer
        if writer.fed or not writer.takes():
            if not writer.blocked:  # perhaps it has only not been written yet
                writer.write_out()
            if writer.outbox.sealed:  # perhaps since now
                return True
            if writer.full():
                return self._hold(publication)
        self._enqueue(publication)
        return True

    def _enqueue(self, publication: Publication) -> None:
        """Into the outbox, which takes it; a service task writes it soon."""
        connection = self._connection
        protocol, writer = connection.protocol, connection.writer
        writer.outbox.append(
            publication.plain if protocol.plain else publication.frame_for(protocol)
        )
        connection.sent += 1
        connection.services.spread(writer)
        self._backlog.delivered += 1
        if self._sent is not None:
            self._sent(publication.message)

    # -- falling behind --------------------------------------------------------------------------

    def _waited(self, publication: Publication) -> None:
        """The oldest message's turn has come: the outbox takes it."""
        assert self._waiting is not None
        self._waiting.popleft()
        self._waiting_bytes -= publication.size
        self._enqueue(publication)

    def _fits(self, publication: Publication) -> bool:
        """Also if it is larger than all of the backlog, but alone there."""
        bounds = self._backlog
        return not self._waiting or (
            len(self._waiting) < bounds.max_messages
            and self._waiting_bytes + publication.size <= bounds.max_bytes
        )

    def _hold(self, publication: Publication) -> bool:
        overflow = self._backlog.overflow
        if not self._fits(publication):
            if overflow == "disconnect":
                self._evict()
                return False
            if overflow == "drop_newest":
                self._count_dropped()
                return True
            while not self._fits(publication):
                self._drop_oldest()
                self._count_dropped()
        if self._waiting is None:
            self._waiting = deque()
        self._waiting.append(self._line.append(self, publication))
        self._waiting_bytes += publication.size
        return True

    def _drop_oldest(self) -> None:
        assert self._waiting is not None
        place = self._waiting.popleft()
        assert place.publication is not None
        self._waiting_bytes -= place.publication.size
        self._line.drop(place)

    def _count_dropped(self) -> None:
        self.dropped += 1
        self._backlog.dropped += 1

    def _evict(self) -> None:
        self._forget()
        self._backlog.evicted += 1
        self._connection.start_close(1013, TOO_SLOW)

    def _forget(self) -> None:
        """Drop what waits: the member leaves."""
        while self._waiting:
            self._drop_oldest()


# What rooms do to their members, and users do not.
deliver = Member._deliver  # noqa: SLF001
forget = Member._forget  # noqa: SLF001
