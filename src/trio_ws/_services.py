"""The tasks that outlive a caller: a nursery for what no user may cancel half-way.

Lives here: the service nursery and the parked task that writes what was left for the next scheduler
pass. Must never live here: anything about one protocol.

The theory. A user's cancel scope must not tear a frame, so blocked writes, closing handshakes and
teardowns run here, in an ordinary nursery outside the cancellable one, each in a shielded scope of
its own that its owner cancels. Because service tasks never raise, the nursery never raises, and
what the body of `open_services` raises comes out as the very object it was.
"""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from itertools import islice
from typing import TYPE_CHECKING, Protocol, TypeVarTuple

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

__all__ = ["Services", "open_services"]

Ts = TypeVarTuple("Ts")

logger = logging.getLogger("trio_ws.connection")

FULL_CHECKPOINT_EVERY = 32
"""Calls that may return at once between two full checkpoints. A checkpoint costs about as much as a
call (4 to 6 us); 32 calls take about 0.3 ms, and 64 saved nothing measurable over them."""


SPREAD = 100
"""Connections written in one step of what `spread` has collected: about a millisecond."""


class Dirty(Protocol):
    def write_out(self) -> None: ...


class Services:
    """The service tasks of one server, or of one connection that stands alone.

    Attributes:
        calls: calls that returned at once since a task last really waited; `breathe` reads it.
    """

    __slots__ = ("_dirty", "_nursery", "_scopes", "_spread", "_writer", "calls")

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._scopes: set[trio.CancelScope] = set()
        self._dirty: list[Dirty] = []
        self._spread: dict[Dirty, None] = {}
        self._writer: trio.lowlevel.Task | None = None
        self.calls = 0

    def start(self, function: Callable[[*Ts], Awaitable[None]], *args: *Ts) -> trio.CancelScope:
        """Run ``await function(*args)`` as a service task.

        Returns:
            The task's own shielded cancel scope; cancelling it ends the task. An exception of the
            task is logged and goes no further.
        """
        scope = trio.CancelScope(shield=True)
        self._scopes.add(scope)
        self._nursery.start_soon(self._run, scope, function, args, name=function)
        return scope

    @trio.lowlevel.enable_ki_protection
    async def _run(
        self,
        scope: trio.CancelScope,
        function: Callable[[*Ts], Awaitable[None]],
        args: tuple[*Ts],
    ) -> None:
        try:
            with scope:
                await function(*args)
        except Exception:
            logger.exception("a service task failed; this is a bug in trio_ws")
        finally:
            self._scopes.discard(scope)

    def write_soon(self, connection: Dirty) -> None:
        """Have `connection` write its outbox at the next scheduler pass, together with all others
        that asked."""
        self._dirty.append(connection)
        if self._writer is not None:
            self._wake(self._writer)

    def spread(self, connection: Dirty) -> None:
        """The same for one of many: only `SPREAD` of these are written between two scheduler
        passes, the first come first, so that a message to thousands does not stall the loop."""
        self._spread[connection] = None
        if self._writer is not None:
            self._wake(self._writer)

    def _wake(self, writer: trio.lowlevel.Task) -> None:
        trio.lowlevel.reschedule(writer)
        self._writer = None

    async def write_dirty(self) -> None:
        """The task behind `write_soon` and `spread`."""

        def abort(_: object) -> trio.lowlevel.Abort:
            self._writer = None
            return trio.lowlevel.Abort.SUCCEEDED

        while True:
            if self._spread:
                await trio.lowlevel.checkpoint()
            elif not self._dirty:
                self._writer = trio.lowlevel.current_task()
                await trio.lowlevel.wait_task_rescheduled(abort)
            dirty, self._dirty = self._dirty, []
            for connection in dirty:
                connection.write_out()
            for connection in list(islice(self._spread, SPREAD)):
                del self._spread[connection]
                connection.write_out()
            self.calls = 0

    def breathe(self) -> Awaitable[None]:
        """A checkpoint for a call that need not wait: always a cancellation point, a full one
        (other tasks run) every few calls. The caller awaits it: a coroutine in between would be
        made for each message."""
        self.calls += 1
        if self.calls < FULL_CHECKPOINT_EVERY:
            return trio.lowlevel.checkpoint_if_cancelled()  # noqa: ASYNC105
        self.calls = 0
        return trio.lowlevel.checkpoint()  # noqa: ASYNC105

    def cancel_all(self) -> None:
        for scope in self._scopes:
            scope.cancel()


@asynccontextmanager
async def open_services() -> AsyncIterator[Services]:
    """Hold service tasks open for the body; cancel what is left of them when it ends.

    Raises:
        Whatever the body raises, as the same object, never in a group of ours.
    """
    failure: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            services = Services(nursery)
            services.start(services.write_dirty)
            try:
                yield services
            except BaseException as exc:  # noqa: BLE001  raised again below, out of the nursery
                failure = exc
            services.cancel_all()
            # They end at once; a cancellation from outside must not turn the wait into a group.
            nursery.cancel_scope.shield = True
    except BaseExceptionGroup as group:
        # No task of ours raises: an interrupt came while they ended, and goes first.
        interrupt = group.exceptions[0]
        interrupt.__context__, failure = failure, interrupt
    if failure is not None:
        raise failure
