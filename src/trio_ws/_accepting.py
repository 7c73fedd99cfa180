"""Accepting streams: how many are held at once, and what happens when accepting fails.

Lives here: the caps on connections, the accept loop of one listener. Must never live here: what
becomes of an accepted stream.
"""

from __future__ import annotations

import errno
import logging
import math
import os
from collections import Counter
from typing import TYPE_CHECKING

import trio

from ._checks import too_many_connections, too_many_from_address
from ._policy import address_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._limits import Limits
    from ._policy import Policy
    from ._request import UpgradeRequest
    from ._response import Refusal

__all__ = ["Slot", "Slots", "accept_forever"]

log = logging.getLogger("trio_ws.server")

EXTRA_STREAMS = 64
"""Streams held above `Limits.max_connections` to be told 503: an honest client learns why, and a
flood is still bounded."""

EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""What accept(2) says when process or machine have run out of something. It passes."""

FIRST_PAUSE = 0.05
LONGEST_PAUSE = 1.0
"""Seconds to wait after such an error; doubled from the first to the longest while it lasts."""

LOG_INTERVAL = 1.0
"""Seconds between two log lines about it, over all listeners of a server."""


LAST_ACCEPT = 0.01
"""Seconds without a new stream after which the queue of a listener counts as empty. What queues is
accepted without any waiting; this is for listeners of other kinds, and for one pass of the loop."""

LAST_ACCEPTS = 1.0
"""Seconds this may take in all: a flood must not keep the door open."""


class Slots:
    """The streams one server holds, and the bounds on them.

    Attributes:
        held: how many there are now.
        loops: accept loops at work, or about to be.
        stopped: set when no more are to be accepted.
    """

    def __init__(self, limits: Limits, policy: Policy) -> None:
        self.policy = policy
        self.limit = math.inf if limits.max_connections is None else limits.max_connections
        self.address_limit = limits.max_connections_per_address
        self.by_address: Counter[str] = Counter()
        self.held = 0
        self.admitted = 0
        self.loops = 0
        self.stopped = trio.Event()
        self._room = trio.lowlevel.ParkingLot()
        self._scopes: list[trio.CancelScope] = []
        self._next_log = -math.inf

    async def wait_for_room(self) -> None:
        """Wait until another stream may be held, be it only to refuse it."""
        while self.full:
            await self._room.park()

    async def wait_until_empty(self) -> None:
        """Wait until no stream is held and none is accepted any more."""
        while self.held or self.loops:
            await self._room.park()

    @property
    def full(self) -> bool:
        """Not one more stream may be held, not even to be refused."""
        return self.held >= self.limit + EXTRA_STREAMS

    def accepting(self) -> trio.CancelScope:
        """A scope for an accept loop; `stop` cancels it."""
        scope = trio.CancelScope()
        self._scopes.append(scope)
        if self.stopped.is_set():
            scope.cancel()
        return scope

    def loop_ended(self) -> None:
        """One accept loop is done."""
        self.loops -= 1
        self._room.unpark_all()

    def stop(self) -> None:
        """Accept no more than what queues already."""
        self.stopped.set()
        for scope in self._scopes:
            scope.cancel()

    def take(self) -> Slot:
        """Hold one more stream; the caller releases the slot."""
        self.held += 1
        return Slot(self)

    def released(self) -> None:
        """A stream is gone: wake the accept loops. All of them: one of them may be cancelled."""
        self.held -= 1
        self._room.unpark_all()

    def complain(self, exc: OSError, pause: float) -> None:
        """Log an accept error, unless one was logged just now."""
        now = trio.current_time()
        if now < self._next_log:
            return
        self._next_log = now + LOG_INTERVAL
        code = errno.errorcode.get(exc.errno or 0, str(exc.errno))
        log.error(
            "accept failed with %s (%s), %d streams are open; next try in %.2f s",
            code,
            os.strerror(exc.errno or 0),
            self.held,
            pause,
        )


class Slot:
    """One stream's place among the streams of its server.

    A stream is admitted when it comes while there is room, or when there is some by the time its
    request is decided on; otherwise it is one of the extra ones and will be refused.
    """

    __slots__ = ("_address", "_admitted", "_slots")

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._admitted = False
        self._address: str | None = None
        self._admit()

    def _admit(self) -> bool:
        if not self._admitted and self._slots.admitted < self._slots.limit:
            self._admitted = True
            self._slots.admitted += 1
        return self._admitted

    def capacity(self, request: UpgradeRequest) -> Refusal | None:
        """The table's row about room. None: there is some, and from here on it counts."""
        if not self._admit():
            return too_many_connections()
        slots = self._slots
        if slots.address_limit is None:
            return None
        address = address_key(request, slots.policy)
        if address is None:
            return None
        if slots.by_address[address] >= slots.address_limit:
            return too_many_from_address()
        slots.by_address[address] += 1
        self._address = address
        return None

    def release(self) -> None:
        """The stream is gone."""
        slots = self._slots
        if self._admitted:
            slots.admitted -= 1
        if self._address is not None:
            slots.by_address[self._address] -= 1
            if not slots.by_address[self._address]:
                del slots.by_address[self._address]  # addresses are many; zeros must not pile up
        slots.released()


@trio.lowlevel.enable_ki_protection
async def accept_forever(
    listener: trio.abc.Listener[trio.abc.Stream],
    slots: Slots,
    start: Callable[[trio.abc.Stream, Slot], None],
) -> None:
    """Accept from one listener until cancelled or stopped; hand each stream with its slot to
    `start`. The listener is closed at the end: nobody should queue where nobody accepts. If it is
    stopped, what queues already is accepted first: the kernel would reset it, and only we can give
    it an answer.

    Running out of descriptors or memory is waited out, longer each time, and logged at most once a
    second; other listeners do not notice. A listener that somebody closes is their way to stop
    accepting there: it is logged, and this returns.

    Raises:
        Exception: any other error of the listener's.
    """
    try:
        with slots.accepting():
            await _accept_on(listener, slots, start)
        await _accept_queue(listener, slots, start)
    except trio.ClosedResourceError:
        log.warning("%r was closed; nothing is accepted there any more", listener)
    finally:
        slots.loop_ended()
        await trio.aclose_forcefully(listener)


async def _accept_on(
    listener: trio.abc.Listener[trio.abc.Stream],
    slots: Slots,
    start: Callable[[trio.abc.Stream, Slot], None],
) -> None:
    pause = FIRST_PAUSE
    while True:
        if slots.full:
            await slots.wait_for_room()
        try:
            stream = await listener.accept()
        except OSError as exc:
            if exc.errno not in EXHAUSTED:
                raise
            slots.complain(exc, pause)
            await trio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
            continue
        pause = FIRST_PAUSE
        if slots.full:
            await _keep_in_hand(stream, slots)
        start(stream, slots.take())


async def _accept_queue(
    listener: trio.abc.Listener[trio.abc.Stream],
    slots: Slots,
    start: Callable[[trio.abc.Stream, Slot], None],
) -> None:
    """Accept what queues already, as far as it may be held: until nothing comes for a moment."""
    with trio.move_on_after(LAST_ACCEPTS):
        while not slots.full:
            stream = None
            with trio.move_on_after(LAST_ACCEPT):
                try:
                    stream = await listener.accept()
                except OSError as exc:
                    if exc.errno not in EXHAUSTED:
                        raise
            if stream is None:
                return
            start(stream, slots.take())


async def _keep_in_hand(stream: trio.abc.Stream, slots: Slots) -> None:
    """Wait with an accepted stream until it may be held: another listener may have taken the last
    place since this one looked."""
    try:
        await slots.wait_for_room()
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
