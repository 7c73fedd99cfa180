"""The closer: from the beginning of a connection's end until its socket is gone.

Lives here: what is waited for, for how long, and how a transport is closed. Must never live here:
the decision how the connection ended (`_connection`).

One service task, started when the end begins and bounded by `close_timeout` whatever the peer does:
it reads for the peer's Close, flushes, lingers where our Close must reach a peer that is still
sending, closes. Where nothing is left to wait for, a plain socket is closed on the spot instead
(`vanish`), and no task is needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import trio

if TYPE_CHECKING:
    from ._reader import Reader
    from ._services import Services
    from ._wire import Wire
    from ._writer import Writer

LINGER_BYTES = 1024 * 1024
"""What is read and dropped, at most, so that our Close reaches a peer that is still sending: a
socket closed with unread bytes is reset by the kernel, and the Close may be lost with it."""

LINGER_READ_COST = 4 * 1024
"""What one read counts at least, so that a peer which dribbles bytes does not cost more turns."""

FAREWELL_PASSES = 3
"""Scheduler passes a stream's flusher gets to put a last Close out before it is closed by force:
enough for TLS over a socket that takes the bytes, nothing for a peer that does not."""


class Owner(Protocol):
    def lose(self) -> None:
        """Patience is over; if it is not decided how the connection ended, it was lost."""


class Closer:
    """Ends one connection's transport.

    Attributes:
        linger: after the flush, half-close and read until the peer has closed, too.
        gone: the transport is closed.
    """

    __slots__ = (
        "_owner",
        "_patience",
        "_reader",
        "_services",
        "_timeout",
        "_vanished",
        "_wire",
        "_writer",
        "gone",
        "linger",
    )

    def __init__(
        self,
        *,
        wire: Wire,
        reader: Reader,
        writer: Writer,
        services: Services,
        timeout: float,
        owner: Owner,
    ) -> None:
        self._wire = wire
        self._reader = reader
        self._writer = writer
        self._services = services
        self._timeout = timeout
        self._owner = owner
        self._patience: trio.CancelScope | None = None
        self.linger = False
        self._vanished: trio.Event | None = None  # made by who waits: it takes 300 bytes
        self.gone = False

    def begin(self) -> None:
        """See the end out, from now on and within the timeout. Idempotent."""
        if self._patience is None:
            self._patience = trio.CancelScope(deadline=trio.current_time() + self._timeout)
            self._services.start(self._see_out, self._patience)

    def finish(self) -> None:
        """It is decided how the connection ended: close on the spot if nothing is left to do."""
        if self._wire.immediate is True and not self._writer.outbox.size and not self.linger:
            self.vanish()
        else:
            self.begin()

    def force(self) -> None:
        """Wait for nothing any more."""
        if self._wire.immediate is True:
            self.vanish()
        elif not self.gone:
            self.begin()
            assert self._patience is not None
            self._patience.cancel()

    def vanish(self) -> None:
        """The transport is closed, or is closed here and now. Idempotent."""
        if self._wire.immediate is True:
            self._wire.close_now()
        self._writer.stop()
        self._reader.protocol.release()
        self.gone = True
        if self._vanished is not None:
            self._vanished.set()

    async def wait_gone(self) -> None:
        """Wait until the transport is closed. Cancelled: nothing happens."""
        if self.gone:
            await trio.lowlevel.checkpoint()
            return
        if self._vanished is None:
            self._vanished = trio.Event()
        await self._vanished.wait()

    async def _see_out(self, patience: trio.CancelScope) -> None:
        with patience:
            try:
                await self._reader.until(lambda: False)
                await self._writer.drained()
                if self.linger:
                    await self._drain_input()
                await self._wire.aclose()
            except Exception:  # noqa: BLE001, S110  closed all the same; the story is told already
                pass
        self._owner.lose()
        if self._wire.immediate is False:
            await self._close_by_force()
        self.vanish()

    async def _drain_input(self) -> None:
        await self._wire.half_close()
        budget = LINGER_BYTES
        while budget > 0 and not self._reader.eof:
            data = await self._wire.read()
            if not data:
                break
            budget -= max(len(data), LINGER_READ_COST)

    async def _close_by_force(self) -> None:
        for _ in range(FAREWELL_PASSES):
            if not self._writer.outbox.size:
                break
            await trio.lowlevel.cancel_shielded_checkpoint()
        with trio.CancelScope() as scope:
            scope.cancel()
            try:
                await self._wire.aclose()
            except Exception:  # noqa: BLE001, S110  closed all the same
                pass
