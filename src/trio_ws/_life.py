"""The life of one connection of a server, and what the connections of one server share.

Lives here: opening, handling, ending, in this order; the one grace they all have when the server is
cancelled; the exception that ends them all. Must never live here: accepting, or how any of the
three steps is done.

The nurseries are two: the services' outside, which sees ends out, and the connections' inside,
which is cancelled. A connection's task raises nothing but Cancelled. What must end the server
(KeyboardInterrupt, a broken listener, a handler's error if asked for) is kept in `failure` while
the nursery is cancelled like by anyone else, so that peers are told, and is raised when all is
over: the very object, in no group of ours.

Everything here but the handler is protected from KeyboardInterrupt: one arrives at an await, or in
the handler, and never between two lines that belong together.
"""

from __future__ import annotations

import logging
import math
from contextlib import nullcontext
from typing import TYPE_CHECKING, Protocol, TypeVarTuple

import trio

from ._attendant import Attendant
from ._connection import Connection
from ._entrance import Entrance
from ._instruments import watchers_of
from ._opening import opening_handshake
from ._outcome import Outcome, holds_error, how_it_ended, interruptible
from ._permessage import PerMessageDeflate
from ._reports import report_end, request_line
from ._stats import Totals
from ._websocket import WebSocket

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ._opening import HeadRead, Opened
    from ._options import Handler, ServerOptions
    from ._request import Address, UpgradeRequest
    from ._response import Response
    from ._services import Services
    from ._stats import ServerStats

__all__ = ["Lives"]

Ts = TypeVarTuple("Ts")

_NO_SCOPE = nullcontext()

log = logging.getLogger("trio_ws.connection")


class Place(Protocol):
    """A stream's place among those of its server."""

    def capacity(self, request: UpgradeRequest) -> Response | None:
        """The table's row about room: a refusal, or None if there is some."""

    def release(self) -> None:
        """The stream is gone."""


class Lives:
    """The connections of one server.

    Attributes:
        open: those past their handshake whose socket or handler still lives.
        failure: what ends the server, if it is not cancellation.
        entrance: what their handshakes share.
        farewell: code and reason for every connection, once the server drains.
        left: the peers whose connections had to be cut off when the server ended.
        over: set when all of it is over, or the time for that is.
    """

    def __init__(self, handler: Handler, options: ServerOptions, services: Services) -> None:
        self.handler = handler
        self.options = options
        self.services = services
        self.open: dict[WebSocket, Connection] = {}
        self.failure: BaseException | None = None
        self._attendant = Attendant(options.limits, services)
        self._totals = Totals()
        self._watchers = watchers_of(options.instruments)
        self.entrance = Entrance(self._totals, self._watchers)
        self.farewell: tuple[int, str] | None = None
        self.left: dict[WebSocket, Address] = {}
        self.over = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._end_of_grace: float | None = None
        self._fewer = trio.lowlevel.ParkingLot()

    # -- the life of one connection --------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def live(
        self,
        stream: trio.abc.Stream,
        place: Place | None = None,
        head: HeadRead | None = None,
    ) -> None:
        """The life of one connection. Raises no Exception; the stream is gone after it, and its
        `place` free."""
        try:
            opened = await opening_handshake(
                stream,
                self.handler,
                self.options,
                entrance=self.entrance,
                capacity=None if place is None else place.capacity,
                head=head,
            )
            if opened is not None:
                await self._converse(opened)
        except Exception:
            log.exception("a connection failed; this is a bug in its stream or in trio_ws")
            await trio.aclose_forcefully(stream)
        finally:
            if place is not None:
                place.release()

    async def _converse(self, opened: Opened) -> None:
        """From the 101 until the socket is gone."""
        started = trio.current_time()
        options, limits = self.options, self.options.limits
        connection = Connection(
            opened.stream,
            client=False,
            limits=limits,
            services=self.services,
            extensions=PerMessageDeflate.agreed(
                opened.compression,
                options.compression,
                client=False,
                max_message=limits.max_message,
            ),
            trailing_data=opened.trailing_data,
        )
        ws = WebSocket(
            connection,
            request=opened.request,
            subprotocol=opened.accept.subprotocol,
            context=opened.accept.context,
            watchers=self._watchers,
        )
        self.open[ws] = connection
        self._attendant.watch(connection)
        if self._watchers is not None:
            self._watchers.opened(ws)
        try:
            await self._handle(ws, connection)
            await connection.wait_gone()
        finally:
            await self._end(ws, connection)
            connection.on_end = None  # it holds `ws`, which holds the connection
            del self.open[ws]
            self._totals.ended(connection)
            self._fewer.unpark_all()
            report_end(opened.request, connection.closed, trio.current_time() - started)

    async def _handle(self, ws: WebSocket, connection: Connection) -> None:
        """Run the handler and begin the end its outcome calls for."""
        raised: BaseException | None = None
        scope = self._listen_for_end(ws, connection)
        if self.farewell is not None:  # the drain began while the 101 was on its way
            connection.start_close(*self.farewell)
        try:
            with scope or _NO_SCOPE:
                await interruptible(self.handler, ws)
        except BaseException as exc:  # noqa: BLE001  ranked below; nothing is lost
            raised = exc
        outcome = how_it_ended(raised, ws.closed)
        # Cancellation outranks what the handler made of it: swallowed, or turned into an error.
        cancelled = outcome is Outcome.CANCELLED or trio.current_effective_deadline() == -math.inf
        if outcome is Outcome.EXIT:
            assert raised is not None
            self.fail(raised)
        elif outcome is Outcome.ERROR and self.options.raise_handler_errors and not cancelled:
            assert raised is not None
            connection.start_close(1011)
            self.fail(raised)
        elif holds_error(raised, ws.closed):
            where = request_line(ws.request)
            log.error("the handler of %s (%s) failed", ws.id, where, exc_info=raised)
            if not cancelled:
                connection.start_close(1011)
        elif not cancelled:
            connection.start_close(1000)
        await trio.lowlevel.checkpoint_if_cancelled()

    def _listen_for_end(self, ws: WebSocket, connection: Connection) -> trio.CancelScope | None:
        """Have instruments told of the end, and the handler cancelled by it if that is wanted."""
        scope = trio.CancelScope() if self.options.cancel_on_close else None
        watchers = self._watchers

        def ended() -> None:
            assert connection.closed is not None
            if scope is not None and not connection.own:
                scope.cancel()
            if watchers is not None:
                watchers.closed(ws, connection.closed, connection.cause)

        if scope is not None or watchers is not None:
            connection.on_end = ended
        return scope

    async def _end(self, ws: WebSocket, connection: Connection) -> None:
        """See the connection gone, politely until the shared grace is over, then at once."""
        if trio.current_effective_deadline() == -math.inf:
            with trio.CancelScope(shield=True, deadline=self.end_of_grace()):
                connection.start_close(self.options.cancel_code, self.options.cancel_reason)
                await connection.wait_gone()
        self._cut_off(ws, connection)
        with trio.CancelScope(shield=True):
            await connection.wait_gone()

    # -- the end of all --------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def run(self, function: Callable[[*Ts], Awaitable[None]], *args: *Ts) -> None:
        """Run ``await function(*args)`` with the sentinel beside it, and end with it.

        Raises:
            Cancelled, bare, or `failure`.
        """
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._watch_grace)
                await self.guard(function, *args)
                nursery.cancel_scope.cancel()
        except (trio.Cancelled, BaseExceptionGroup) as exc:
            # Every task is guarded: these are all Cancelled, one for each, and one is enough.
            # Unless an interrupt came while we were waiting for the tasks to end.
            if self.failure is None:
                if how_it_ended(exc) is Outcome.CANCELLED:
                    await trio.lowlevel.checkpoint_if_cancelled()
                raise
        finally:
            self.over.set()
        if self.failure is not None:
            raise self.failure

    def start(self, function: Callable[[*Ts], Awaitable[None]], *args: *Ts) -> None:
        """Run ``await function(*args)``, guarded, as a task that is cancelled with the server."""
        assert self._nursery is not None
        self._nursery.start_soon(self.guard, function, *args, name=function)

    @trio.lowlevel.enable_ki_protection
    async def guard(self, function: Callable[[*Ts], Awaitable[None]], *args: *Ts) -> None:
        """Run ``await function(*args)``; what it raises ends the server."""
        try:
            await function(*args)
        except BaseException as exc:
            if how_it_ended(exc) is Outcome.CANCELLED and not holds_error(exc):
                raise
            self.fail(exc)

    def fail(self, failure: BaseException) -> None:
        """End the server with `failure`, the first one; peers are told as if it were cancelled."""
        if self.failure is None:
            self.failure = failure
        else:
            log.error("another failure while the server ends", exc_info=failure)
        self.stop()

    def stop(self) -> None:
        """End the server, as if it were cancelled, but from inside: `run` returns."""
        assert self._nursery is not None
        self._nursery.cancel_scope.cancel()

    def end_of_grace(self) -> float:
        """When the one grace of all connections is over; fixed by whoever asks first."""
        if self._end_of_grace is None:
            self._end_of_grace = trio.current_time() + self.options.limits.cancel_grace
        return self._end_of_grace

    @trio.lowlevel.enable_ki_protection
    async def _watch_grace(self) -> None:
        """The sentinel: when cancelled, allow the grace, then close what is left. Handlers that
        shield themselves do not see the cancellation; their peers do."""
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True, deadline=self.end_of_grace()):
                while self.open:
                    await self._fewer.park()
            self.close_what_is_left(self.options.cancel_code, self.options.cancel_reason)

    def close_what_is_left(self, code: int, reason: str) -> None:
        """Time is up: offer a Close to whoever has not heard one, and wait for nothing."""
        for ws, connection in self.open.items():
            connection.start_close(code, reason)
            self._cut_off(ws, connection)
        self._end_of_grace = -math.inf
        self.over.set()

    def _cut_off(self, ws: WebSocket, connection: Connection) -> None:
        if not connection.gone:
            self.left[ws] = ws.request.peer_address
            connection.kill()

    def stats(self) -> ServerStats:
        """A snapshot."""
        return self._totals.snapshot(self.open.values(), len(self.entrance.inside))
