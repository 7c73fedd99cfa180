"""`RedisBroker`: rooms over many processes, through Redis. The extra ``redis``: coredis.

Lives here: reading and writing records, the doorbell (one pub/sub channel), coming back. Must never
live here: rooms, what a record looks like (`_record`), or a command that blocks in Redis.

The theory. Redis Streams hold what was said, capped; that alone is the truth, and readers read it
by id. Pub/sub is only the doorbell: "there is something in this room". A bell that is not heard
costs a second at most, because all rooms somebody reads are asked for news once a second, in one
command; so nothing depends on a subscription that is whole, or on its reconnecting.

Everything that speaks to Redis lives in an *epoch*: one pool, one subscription, from the connecting
until the first fault of either. Then all of it is thrown away and built anew: coredis loses a slot
of its pool with each subscription whose connection is lost, and with a caller cancelled while it
connects. For the same reason no caller ever runs a command: service tasks do. Between two epochs
every call fails at once.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar
from urllib.parse import urlsplit

import coredis
import trio
from coredis.connection import TCPLocation, UnixDomainSocketLocation
from coredis.retry import NoRetryPolicy

from ._broker import Broker, BrokerError, checked_message, read_id_untrusted
from ._record import PUBLISH, TOKEN_LIFETIME, field_of, id_of, record_key, records_of, room_of
from ._services import open_services

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from ._services import Services

__all__ = ["RedisBroker"]

T = TypeVar("T")

log = logging.getLogger("trio_ws.redis")

POLL = 1.0
"""Seconds until a message whose bell was lost is found."""

RETRY = 0.25
"""Seconds between two tries to reach Redis."""

BATCH = 256
"""Messages read at once."""

MAX_EXPIRE = 1e12
"""Seconds. Redis counts milliseconds in 64 bits; it would refuse more than they hold only when the
message has been written already, and keep it for ever."""


class RedisBroker(Broker):
    """A `Broker` whose record is in Redis (7 or newer), for rooms over many processes::

        async with RedisBroker("redis://localhost") as broker:
            async with Room("lobby", broker=broker) as room:
                ...

    Delivery is at least once, with ids; a subscription drops what it has delivered already. When
    Redis is away, `publish` and `history` raise `BrokerError` at once; subscriptions wait and go on
    behind the last message they have delivered. What was acknowledged by `publish` survives a crash
    of Redis as far as its append-only file does (``appendonly yes``).

    A room's record expires when nothing was published to the room for `expire` seconds; ids go on
    growing. To who comes back later it looks as if the room had been trimmed: the message they saw
    last is not kept any more, and what is kept may not be all that they missed.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "trio_ws",
        keep: int = 10_000,
        expire: float | None = 7 * 24 * 3600,
        timeout: float = 2.0,
    ) -> None:
        """
        Args:
            url: ``redis://``, ``rediss://`` (TLS) or ``unix://``, as coredis has it.
            prefix: of all keys and of the channel; brokers share rooms by having the same one.
            keep: messages kept of each room, about: Redis trims in blocks.
            expire: seconds that a room's messages are kept from its last one on; None for ever. A
                week: often anybody can think of a room, and nobody ever tidies up.
            timeout: seconds Redis may take to answer before it counts as away.

        Raises:
            ValueError: the URL is none of a Redis, `keep` is less than 1, or `expire` less than a
                second or more than some thirty thousand years.
        """
        if urlsplit(url).scheme not in ("redis", "rediss", "unix"):
            raise ValueError("not the URL of a Redis: redis://, rediss:// or unix://")
        if keep < 1:
            raise ValueError("keep at least one message: it is what subscribers read")
        # Ids are Redis' clock: one that is put right by less than this does not turn them back.
        if expire is not None and not 1 <= expire <= MAX_EXPIRE:
            raise ValueError(
                f"a record expires after 1 to {MAX_EXPIRE:.0f} seconds, or never (None)"
            )
        self._url = url
        self._prefix = prefix
        self._bell = f"{prefix}:bell"
        self._keep = keep
        self._expire: str | int = "" if expire is None else round(expire * 1000)
        self._timeout = timeout
        self._readings: dict[str, set[_Reading]] = {}
        self._client: coredis.Redis[bytes] | None = None
        self._why: BaseException | None = None
        self._lifetime: AbstractAsyncContextManager[Services] | None = None
        self._services: Services | None = None
        self._tried = trio.Event()

    @property
    def connected(self) -> bool:
        """Whether Redis was there when it was last looked for; not older than about a second."""
        return self._client is not None

    async def __aenter__(self) -> Self:
        """Connect, and keep connected for as long as the block.

        Waits for the first try, not for its success: a Redis that is away now is like one that goes
        away later, see `connected`. RuntimeError if entered already.
        """
        if self._lifetime is not None:
            raise RuntimeError("this broker is entered already")
        self._lifetime = open_services()
        self._services = await self._lifetime.__aenter__()
        self._services.start(self._live)
        try:
            await self._tried.wait()
        except BaseException as exc:
            await self.__aexit__(type(exc), exc, exc.__traceback__)
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        lifetime, self._lifetime = self._lifetime, None
        assert lifetime is not None
        try:
            return await lifetime.__aexit__(exc_type, exc, traceback)
        finally:
            self._services = self._client = None

    # -- the three methods -----------------------------------------------------------------------

    async def publish(
        self,
        room: str,
        message: str | bytes | bytearray | memoryview,
        *,
        token: str | None = None,
    ) -> str:
        """See `Broker.publish`. Tokens are remembered for ten minutes."""
        kind, payload = field_of(checked_message(message))
        record = self._record(room)
        known = record if token is None else f"{record}:token:{token}"
        step: list[str | bytes | int] = [token or "", self._keep, kind, payload, TOKEN_LIFETIME]
        step += [self._bell, room, self._expire]

        async def write(client: coredis.Redis[bytes]) -> object:
            return await client.eval(PUBLISH, keys=[record, known], args=step)

        return id_of(await self._call(write))

    @asynccontextmanager
    async def subscribe(
        self, room: str, after: str | None = None
    ) -> AsyncIterator[trio.abc.ReceiveChannel[tuple[str, str | bytes]]]:
        """See `Broker.subscribe`. With `after` it can be entered while Redis is away."""
        if after is not None:
            read_id_untrusted(after)
            await trio.lowlevel.checkpoint()
        else:
            newest = await self.history(room, 1)
            after = newest[-1][0] if newest else "0-0"
        reading = _Reading(self, room, after)
        readings = self._readings.setdefault(room, set())
        readings.add(reading)
        try:
            yield reading
        finally:
            reading.close()
            readings.discard(reading)
            if not readings and self._readings.get(room) is readings:
                del self._readings[room]

    async def history(self, room: str, n: int) -> list[tuple[str, str | bytes]]:
        """See `Broker.history`."""
        if n < 1:
            await trio.lowlevel.checkpoint()
            return []

        async def read(client: coredis.Redis[bytes]) -> Iterable[Any]:
            return await client.xrevrange(self._record(room), count=n)

        return records_of(await self._call(read))[::-1]

    async def records_after(self, room: str, last: str) -> list[tuple[str, str | bytes]]:
        """The next messages behind `last`, `BATCH` at most."""

        async def read(client: coredis.Redis[bytes]) -> Iterable[Any]:
            return await client.xrange(self._record(room), start=f"({last}", count=BATCH)

        return records_of(await self._call(read))

    def _record(self, room: str) -> str:
        return record_key(self._prefix, room)

    # -- commands --------------------------------------------------------------------------------

    async def _call(self, command: Callable[[coredis.Redis[bytes]], Awaitable[T]]) -> T:
        """Have a service task run `command`. Cancelled: it runs to its end.

        Raises:
            BrokerError: Redis is away, or refused.
        """
        client, services = self._client, self._services
        if client is None or services is None:
            await trio.lowlevel.checkpoint()
            raise BrokerError("Redis is away") from self._why
        call: _Call[T] = _Call()
        services.start(call.run, command, client)
        await call.done.wait()
        if call.error is not None:
            raise BrokerError(f"Redis: {call.error}") from call.error
        return call.result

    # -- epochs ----------------------------------------------------------------------------------

    async def _live(self) -> None:
        while True:
            try:
                await self._epoch()
            except* Exception as exc:  # noqa: BLE001  coredis' own, beside `Cancelled` perhaps
                self._why = exc
                ending = trio.current_effective_deadline() == -math.inf
                if not ending and (self._client is not None or not self._tried.is_set()):
                    log.warning("Redis is away: %s", _first(exc))
            finally:
                self._client = None
            self._tried.set()
            await trio.sleep(RETRY)

    async def _epoch(self) -> None:
        """From connecting to the first fault. Always raises."""
        client: coredis.Redis[bytes] = coredis.Redis.from_url(
            self._url,
            decode_responses=False,
            verify_version=False,
            retry_policy=NoRetryPolicy(),
            stream_timeout=self._timeout,
            connect_timeout=self._timeout,
            max_connections=8,
        )
        with trio.move_on_after(self._timeout) as entering:
            await _knock(client.connection_pool.location)
            async with client:
                bells = client.pubsub(channels=[self._bell], retry_policy=NoRetryPolicy())
                async with bells:
                    entering.deadline = math.inf
                    if self._tried.is_set():
                        log.warning("Redis is back")
                    self._client = client
                    self._tried.set()
                    self._ring(*self._readings)
                    await self._listen(client, bells)
        raise TimeoutError("it did not answer in time")

    async def _listen(self, client: coredis.Redis[bytes], bells: Any) -> None:
        next_poll = trio.current_time() + POLL
        while True:
            wait = next_poll - trio.current_time()
            if wait <= 0:
                await self._poll(client)
                next_poll = trio.current_time() + POLL
                continue
            # `get_message`: the iterator can end without a word.
            heard = await bells.get_message(ignore_subscribe_messages=True, timeout=wait)
            if heard is not None and heard["type"] == "message":
                self._ring(heard["data"].decode())

    async def _poll(self, client: coredis.Redis[bytes]) -> None:
        """Ask all rooms that are read for news, in one command that does not block."""
        asked = {
            self._record(room): min((each.last for each in readings), key=read_id_untrusted)
            for room, readings in self._readings.items()
            if readings
        }
        if not asked:
            await client.ping()
            return
        news = await client.xread(asked, count=1)
        self._ring(*(room_of(self._prefix, key) for key in news or ()))

    def _ring(self, *rooms: str) -> None:
        for room in rooms:
            for reading in self._readings.get(room, ()):
                reading.ring()


class _Call(Generic[T]):
    """One command, run by a service task for a caller who may leave."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.error: BaseException | None = RuntimeError("the broker's block has been left")
        self.result: T

    async def run(
        self,
        command: Callable[[coredis.Redis[bytes]], Awaitable[T]],
        client: coredis.Redis[bytes],
    ) -> None:
        try:
            self.result = await command(client)
            self.error = None
        except Exception as exc:  # noqa: BLE001  the caller raises it
            self.error = _first(exc)
        finally:
            self.done.set()


class _Reading(trio.abc.ReceiveChannel["tuple[str, str | bytes]"]):
    """A subscription: where it is, and what it has read ahead.

    Attributes:
        last: the id of the last message handed out.
    """

    def __init__(self, broker: RedisBroker, room: str, last: str) -> None:
        self._broker = broker
        self._room = room
        self._ahead: deque[tuple[str, str | bytes]] = deque()
        self._bell = trio.Event()
        self._busy = False
        self._closed = False
        self.last = last

    def ring(self) -> None:
        """There may be something new."""
        self._bell.set()

    async def receive(self) -> tuple[str, str | bytes]:
        """See `Broker.subscribe`. BusyResourceError: another task is receiving."""
        if self._busy:
            raise trio.BusyResourceError("another task is receiving from this subscription")
        self._busy = True
        try:
            await trio.lowlevel.checkpoint()
            while not self._ahead:
                if self._closed:
                    break
                self._bell = trio.Event()
                try:
                    self._ahead.extend(await self._broker.records_after(self._room, self.last))
                except BrokerError:  # the next epoch begins with a ring
                    await self._bell.wait()
                else:
                    if not self._ahead:
                        await self._bell.wait()
            if self._closed:
                raise trio.ClosedResourceError("this subscription has ended")
            record = self._ahead.popleft()
            self.last = record[0]
            return record
        finally:
            self._busy = False

    def close(self) -> None:
        self._closed = True
        self.ring()

    async def aclose(self) -> None:
        self.close()
        await trio.lowlevel.checkpoint()


async def _knock(location: object) -> None:
    """See whether somebody is there: coredis logs a traceback whenever it cannot connect."""
    if isinstance(location, TCPLocation):
        stream = await trio.open_tcp_stream(location.host, location.port)
    elif isinstance(location, UnixDomainSocketLocation):
        stream = await trio.open_unix_socket(location.path)
    else:
        return
    await trio.aclose_forcefully(stream)


def _first(exc: BaseException) -> BaseException:
    """The first fault of a group: they are all the same one."""
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    return exc
