"""Rooms: one message to many connections, in one process or, through a broker, in many.

Lives here: who is in a room, publishing, presence, the pump that publishes what a broker brings.
Must never live here: what happens to a member that falls behind (`_member`), a broker (`_broker`).

The theory. `publish` never waits: it puts one shared frame into each member's outbox and leaves the
writing to a service task, which writes a hundred connections a step. Publishing twice before that
costs no second write. A room is a dict; an empty one owns no task, no timer, no buffer.

A room with a broker is published to by one task, the pump, in the broker's order. A member that
resumes reads what it missed from the broker itself, until it is level with the pump; from the next
id on the pump serves it. No id is skipped or repeated, because joining and publishing are each one
synchronous step.
"""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import trio

from ._broker import BEGINNING, read_id_untrusted
from ._member import Backlog, Member, Publication, deliver, forget
from ._services import open_services

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from ._broker import Broker, Id
    from ._member import Overflow
    from ._services import Services
    from ._websocket import WebSocket

__all__ = ["Presence", "Room", "RoomStats"]

log = logging.getLogger("trio_ws.rooms")

RETRY = 1.0
"""Seconds between two tries to subscribe, where a broker's subscription ended by itself; and until
somebody who waits for a message that was there looks whether it still is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Presence:
    """How the members of a room have changed since the last look.

    Attributes:
        joined: who came and is there still, in that order.
        left: who went, of those that were reported as joined.
    """

    joined: tuple[Member, ...]
    left: tuple[Member, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class RoomStats:
    """Numbers of one room, so far or now.

    Attributes:
        members: connections in the room now.
        published: calls of `Room.publish`.
        delivered: messages put into a member's outbox, counted once for each member.
        dropped: messages dropped by ``overflow``, counted likewise.
        evicted: members disconnected by ``overflow``.
        backlog, backlog_bytes: messages that wait now, over all members.
    """

    members: int
    published: int
    delivered: int
    dropped: int
    evicted: int
    backlog: int
    backlog_bytes: int


class Changes:
    """The changes of a room's presence, from `Room.presence`: iterate over it."""

    __slots__ = ("_joined", "_left", "_waiting")

    def __init__(self, members: Iterable[Member]) -> None:
        self._joined = dict.fromkeys(members)
        self._left: dict[Member, None] = {}
        self._waiting = trio.lowlevel.ParkingLot()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Presence:
        """Wait for a change. Cancelled: none is lost."""
        await trio.lowlevel.checkpoint()
        while not (self._joined or self._left):
            await self._waiting.park()
        presence = Presence(joined=tuple(self._joined), left=tuple(self._left))
        self._joined.clear()
        self._left.clear()
        return presence

    def note(self, member: Member, *, joined: bool) -> None:
        """Who came and went between two looks was never there: what is kept stays bounded."""
        if joined:
            self._joined[member] = None
        elif member in self._joined:
            del self._joined[member]
        else:
            self._left[member] = None
        self._waiting.unpark_all()


class Room:
    """Connections that are told the same things::

        lobby = Room()

        async def handler(ws):
            async with lobby.join(ws) as member:
                async for message in ws:
                    lobby.publish(message, exclude=[member])

    With a broker, rooms of the same name in any number of processes are one, and the room itself is
    a context manager::

        async with Room("lobby", broker=broker) as lobby:
            await serve(handler, 8000)      # handlers call `await lobby.broadcast(message)`

    A message is encoded once and its frame shared by all members; where compression was agreed
    upon, by those whose parameters are equal and who have ``server_no_context_takeover``. All
    messages reach one member in the order in which they were published to it and sent with
    `WebSocket.send`.
    """

    __slots__ = (
        "_arriving",
        "_backlog",
        "_broker",
        "_lifetime",
        "_members",
        "_name",
        "_position",
        "_published",
        "_watching",
        "_wrap",
    )

    def __init__(
        self,
        name: str = "",
        *,
        broker: Broker | None = None,
        overflow: Overflow = "disconnect",
        backlog: int = 1024,
        backlog_bytes: int = 1024 * 1024,
        wrap: Callable[[str, str | bytes], str | bytes] | None = None,
    ) -> None:
        """
        Args:
            name: what the broker knows the room by; a room without one needs none.
            overflow: what happens when a member's backlog is full. ``"disconnect"``: the member is
                closed with 1013, because whoever misses messages unnoticed is worse off than one
                who reconnects. ``"drop_oldest"``, where only the newest state counts.
                ``"drop_newest"``: the message is dropped that does not fit.
            backlog: messages that may wait for one member, beyond its ``limits.max_outbox``. 1024:
                seconds of a stalled network in a busy room.
            backlog_bytes: and their bytes. 1 MiB, as one message at most; a larger one may wait
                alone.
            wrap: what members get for a message of the broker's, from its id and itself: so that a
                page knows the last id it saw. Called once for each message.

        Raises:
            ValueError: a broker without a name, an `overflow` that is none of these, or a backlog
                that holds nothing.
        """
        if broker is not None and not name:
            raise ValueError("a room with a broker needs a name")
        self._name = name
        self._broker = broker
        self._backlog = Backlog(overflow, backlog, backlog_bytes)
        self._wrap = wrap
        self._members: dict[WebSocket, Member] = {}
        self._published = 0
        self._watching: list[Changes] | None = None
        self._lifetime: AbstractAsyncContextManager[Services] | None = None
        self._position: Id | None = None
        self._arriving: dict[Member, Id] | None = None

    def __repr__(self) -> str:
        return f"<Room {self._name!a} {len(self._members)} members>"

    # -- facts -----------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """What the broker knows it by."""
        return self._name

    @property
    def members(self) -> tuple[Member, ...]:
        """Who is in the room in this process, in order of joining."""
        return tuple(self._members.values())

    def stats(self) -> RoomStats:
        """Its numbers, now."""
        members = self._members.values()
        books = self._backlog
        return RoomStats(
            members=len(members),
            published=self._published,
            delivered=books.delivered,
            dropped=books.dropped,
            evicted=books.evicted,
            backlog=sum(member.backlog for member in members),
            backlog_bytes=sum(member.backlog_bytes for member in members),
        )

    # -- presence --------------------------------------------------------------------------------

    @asynccontextmanager
    async def join(
        self, ws: WebSocket, *, context: object = None, after: str | None = None
    ) -> AsyncIterator[Member]:
        """Be in the room for as long as the block::

            async with room.join(ws) as member:
                ...

        The connection stays its owner's. Leaving the block, in whatever way, drops what waits for
        the member, and closes nothing. A member that falls behind may
        be taken out earlier, see ``overflow``.

        Args:
            context: anything; `Member.context`.
            after: in a room with a broker, the id of the last message the peer has seen. What came
                since is sent first, as far as it is kept, without gap or repetition.

        Raises:
            RuntimeError: this connection is in the room already.
            ValueError: `after` is no id.
            BrokerError: `after` is given and the broker is away.
            ConnectionClosed: it closed while what it missed was being sent.

        Cancelled while entering: it has not joined.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        last = None if after is None else await self._catch_up(ws, read_id_untrusted(after))
        # From the last look at the pump to `_enter` nothing awaits.
        if ws in self._members:
            raise RuntimeError(f"{ws!r} is in {self!r} already")
        member = Member(ws, self._backlog, context)
        self._enter(member, last)
        try:
            yield member
        finally:
            self._leave(member)

    def _enter(self, member: Member, last: Id | None) -> None:
        self._members[member.ws] = member
        if last is not None and self._position is not None and last > self._position:
            if self._arriving is None:
                self._arriving = {}
            self._arriving[member] = last
        for changes in self._watching or ():
            changes.note(member, joined=True)

    def _leave(self, member: Member) -> None:
        if self._arriving is not None:
            self._arriving.pop(member, None)
        if self._members.get(member.ws) is member:
            del self._members[member.ws]
            forget(member)
            for changes in self._watching or ():
                changes.note(member, joined=False)

    @contextmanager
    def presence(self) -> Iterator[Changes]:
        """Hear of joining and leaving in this process, for as long as the block::

            with room.presence() as changes:
                async for change in changes:
                    print(change.joined, change.left)

        The first change holds everybody who is there. Who does not look for a while gets one change
        that sums up; who came and went meanwhile is not in it. Waiting may be cancelled: no change
        is lost.
        """
        changes = Changes(self._members.values())
        if self._watching is None:
            self._watching = []
        self._watching.append(changes)
        try:
            yield changes
        finally:
            self._watching.remove(changes)

    # -- publishing ------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    def publish(
        self,
        message: str | bytes | bytearray | memoryview,
        *,
        exclude: Iterable[Member | WebSocket] = (),
    ) -> None:
        """Send a message to every member in this process. Never waits.

        It is written by the next scheduler passes; for members that cannot take it now it waits in
        their backlog. A mutable buffer may be changed as soon as this returns.

        Args:
            exclude: members that do not get it.

        Raises:
            TypeError, ValueError: as `WebSocket.send`; nobody got it.
        """
        publication = Publication(message)
        self._published += 1
        members = list(self._members.values())
        if exclude:
            left_out = {each.ws if isinstance(each, Member) else each for each in exclude}
            members = [member for member in members if member.ws not in left_out]
        evicted = [member for member in members if not deliver(member, publication)]
        for member in evicted:
            self._leave(member)

    async def broadcast(
        self, message: str | bytes | bytearray | memoryview, *, token: str | None = None
    ) -> str:
        """Send a message to every member in all processes, through the broker.

        Args:
            token: see `Broker.publish`.

        Returns:
            The message's id. Members get it a little later, all in the same order.

        Raises:
            RuntimeError: the room has no broker, or its block is not entered.
            BrokerError: the broker is away. Members stay; what comes later is delivered.
            TypeError, ValueError: as `WebSocket.send`.

        Cancelled: not known whether it was sent.
        """
        return await self._entered().publish(self._name, message, token=token)

    def _entered(self) -> Broker:
        if self._broker is None:
            raise RuntimeError(f"{self!r} has no broker; `publish` reaches this process")
        if self._lifetime is None:
            raise RuntimeError(f"enter the room first: `async with` {self!r}")
        return self._broker

    # -- the broker's side -----------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Begin to publish what the broker brings.

        Raises:
            RuntimeError: the room has no broker, or is entered already.
            BrokerError: the broker is away.

        Cancelled: it is not entered.
        """
        if self._broker is None or self._lifetime is not None:
            raise RuntimeError(f"{self!r} has no broker, or is entered already")
        newest = await self._broker.history(self._name, 1)
        self._position = read_id_untrusted(newest[-1][0]) if newest else BEGINNING
        lifetime = open_services()
        services = await lifetime.__aenter__()
        self._lifetime = lifetime
        services.start(self._pump, self._broker)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        """Stop that. Members stay: their blocks are their own."""
        lifetime, self._lifetime = self._lifetime, None
        assert lifetime is not None
        return await lifetime.__aexit__(exc_type, exc, traceback)

    async def _pump(self, broker: Broker) -> None:
        while True:
            try:
                async with broker.subscribe(self._name, after=self._last_id()) as messages:
                    async for number, message in messages:
                        self._publish_record(number, message)
            except Exception:
                log.exception("the subscription of %r failed; it is tried again", self)
            await trio.sleep(RETRY)

    def _last_id(self) -> str:
        assert self._position is not None
        return "{}-{}".format(*self._position)

    def _publish_record(self, text: str, message: str | bytes) -> None:
        number = read_id_untrusted(text)
        assert self._position is not None
        if number <= self._position:
            return
        # From here on the message counts as done: one that cannot be published must not come again.
        self._position = number
        ahead: set[WebSocket] = set()
        if self._arriving:
            ahead = {member.ws for member, last in self._arriving.items() if last >= number}
            if not ahead:
                self._arriving = None
        try:
            self.publish(self._wrapped(text, message), exclude=ahead)
        except Exception:
            log.exception("%r cannot publish the message %s", self, text)

    def _wrapped(self, text: str, message: str | bytes) -> str | bytes:
        return message if self._wrap is None else self._wrap(text, message)

    async def _catch_up(self, ws: WebSocket, last: Id) -> Id:
        """Send what came behind `last` and is kept, until it is level with the pump or ahead.

        Returns:
            The id of the last message sent.
        """
        broker = self._entered()
        assert self._position is not None
        while last < self._position:
            newest = await broker.history(self._name, 1)
            if not newest or read_id_untrusted(newest[-1][0]) <= last:
                break  # a record may expire while its room is open
            async with broker.subscribe(self._name, after="{}-{}".format(*last)) as missed:
                while last < self._position:
                    record = None
                    with trio.move_on_after(RETRY):
                        record = await missed.receive()
                    if record is None:
                        break
                    text, message = record
                    await ws.send(self._wrapped(text, message))
                    last = read_id_untrusted(text)
        return last
