"""One opening handshake (RFC 6455 section 4.2), from the first byte to 101 or the end.

Lives here: the order of TLS, head, decision, hooks and answer, and the deadline over all of it.
Must never live here: a rule about requests (`_checks`, `_handshake`), how bytes are got
(`_transport`), what hooks say (`_hooks`), frames, or the handler.

Four things may end a handshake from outside, and differ in what the client sees. The deadline: 408
while the head is incomplete, 503 from then on; nothing during TLS, or once the 101 is being
written. A drain: 503 at once, also while the head is incomplete; but TLS, a page in the making, and
a 101 on its way go on, within the deadline. Cancellation: not a byte more. A client that is gone:
nothing to see.

The first two come by a cancel scope around each wait (`_in_time`). A handshake that never waits,
because its request came in one piece with the connection, pays for none.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, TypeVar, TypeVarTuple

import trio

from ._checks import authorize_failed, draining, too_slow
from ._deflate import choose_offer_untrusted
from ._handshake import (
    READ_SIZE,
    HandshakeEvent,
    ServerHandshake,
    http_response,
    switching_protocols,
)
from ._headers import printable_untrusted
from ._hooks import authorized, page
from ._policy import decide
from ._reports import peer_name
from ._request import UpgradeRequest
from ._response import Accept, Refusal, Response
from ._routes import Routes
from ._transport import addresses_of, deliver
from ._wire import open_wire

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ._deflate import Agreement
    from ._entrance import Entrance
    from ._options import Handler, ServerOptions

__all__ = ["HeadRead", "Opened", "opening_handshake"]

R = TypeVar("R")
Ts = TypeVarTuple("Ts")

Capacity: TypeAlias = "Callable[[UpgradeRequest], Response | None]"

log = logging.getLogger("trio_ws.handshake")


class Opened(NamedTuple):
    """A handshake that was answered with 101. Whoever gets it owns the stream.

    Attributes:
        stream: the stream, with the request read and the 101 written.
        request: as the policy resolved it (proxies, route captures).
        accept: what was agreed on.
        compression: what was agreed on about that; None for none.
        trailing_data: what the client sent behind its request: its first frames.
    """

    stream: trio.abc.Stream
    request: UpgradeRequest
    accept: Accept
    compression: Agreement | None
    trailing_data: bytes


class OutOfPatience(Exception):
    """The deadline has passed, or the server drains: there is an answer to that."""


class HeadRead:
    """A request whose head another server has read, in the place of the machine that reads one."""

    head_complete = True

    def __init__(self, request: UpgradeRequest, trailing_data: bytes) -> None:
        self.trailing_data = trailing_data
        self._request = request

    def next_event(self) -> UpgradeRequest:
        return self._request

    def receive_data(self, data: bytes) -> None:  # noqa: ARG002  the machine's signature
        raise AssertionError("there is nothing to read")


async def opening_handshake(
    stream: trio.abc.Stream,
    handler: Handler,
    options: ServerOptions,
    *,
    entrance: Entrance,
    capacity: Capacity | None = None,
    head: HeadRead | None = None,
) -> Opened | None:
    """Read one request from `stream` and answer it, within ``limits.handshake_timeout``.

    Args:
        handler: asked for its routes only.
        entrance: what this handshake shares with the others of its server.
        capacity: the table's row about room: a refusal, or None if there is some.
        head: the request, if it has been read already.

    Returns:
        The opened connection; or None: the client was told otherwise, or is gone, and the stream
        is closed.

    Raises:
        Exception: what a foreign stream raises; the stream is closed.

    Cancellation: the stream is closed without another byte.
    """
    opening = Opening(stream, handler, options, capacity=capacity, head=head, entrance=entrance)
    entrance.inside.add(opening)
    try:
        opened = await opening.run()
    except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as exc:
        log.debug(
            "%s is gone during the handshake: %s", opening.peer, printable_untrusted(str(exc))
        )
        opened = None
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    finally:
        entrance.inside.discard(opening)
    if opened is None:
        await trio.aclose_forcefully(stream)
    return opened


class Opening:
    """One handshake under way. `run` is its life; the rest are its steps."""

    def __init__(
        self,
        stream: trio.abc.Stream,
        handler: Handler,
        options: ServerOptions,
        *,
        capacity: Capacity | None,
        head: HeadRead | None,
        entrance: Entrance,
    ) -> None:
        self._peer_address, local_address = addresses_of(stream)
        self._stream = stream
        self._wire = open_wire(stream)
        self._options = options
        self._routes = handler if isinstance(handler, Routes) else None
        self._capacity = capacity
        self._entrance = entrance
        tls = isinstance(stream, trio.SSLStream)
        self._machine: HeadRead | ServerHandshake = head or ServerHandshake(
            limits=options.limits,
            tls=tls,
            peer_address=self._peer_address,
            local_address=local_address,
        )
        self._request: UpgradeRequest | None = None
        self._may_answer = not tls
        self._deadline = trio.current_time() + options.limits.handshake_timeout
        self._patience: trio.CancelScope | None = None
        self._may_turn_away = False

    @property
    def peer(self) -> str:
        """The client, for a log."""
        return peer_name(self._peer_address)

    async def run(self) -> Opened | None:
        """The whole handshake."""
        answer: Opened | Accept | Response | None
        try:
            answer = await self._find_answer()
            if isinstance(answer, Accept):
                answer = await self._switch(answer)
        except OutOfPatience:
            late = too_slow(head_complete=self._machine.head_complete)
            answer = draining() if self._entrance.closed else late
        if isinstance(answer, Opened):
            self._entrance.admitted(answer.accept, answer.request, answer.trailing_data)
            return answer
        if isinstance(answer, Response):
            self._entrance.refused(answer, self._request, self.peer)
            if self._may_answer:
                await self._deliver(answer)
        return None

    def turn_away(self) -> None:
        """The server drains: answer 503 now, unless there is an answer on its way."""
        if self._may_turn_away and self._patience is not None:
            self._patience.cancel()

    async def _in_time(self, function: Callable[[*Ts], Awaitable[R]], *args: *Ts) -> R:
        """``await function(*args)``, unless the deadline or a drain comes first.

        Raises:
            OutOfPatience: one of them did, perhaps since the last wait.
        """
        self._check_patience()
        with trio.CancelScope(deadline=self._deadline) as self._patience:
            return await function(*args)
        raise OutOfPatience

    def _check_patience(self) -> None:
        turned_away = self._may_turn_away and self._entrance.closed
        if turned_away or trio.current_time() >= self._deadline:
            raise OutOfPatience

    # -- finding the answer ----------------------------------------------------------------------

    async def _find_answer(self) -> Accept | Response | None:
        """What to tell the client; None if there is nobody to tell."""
        if not self._may_answer:
            assert isinstance(self._stream, trio.SSLStream)
            await self._in_time(self._stream.do_handshake)
            self._may_answer = True
        if self._entrance.closed:
            return draining()
        self._may_turn_away = True
        event = await self._read_head()
        if not isinstance(event, UpgradeRequest):
            return event
        self._request = event
        decision = decide(
            event,
            self._options.policy,
            routes=self._routes,
            plain=self._options.http is not None,
            capacity=self._capacity,
        )
        self._request = decision.request
        if isinstance(decision.verdict, Refusal):
            return decision.verdict
        options = self._options
        if isinstance(decision.verdict, Accept):
            if options.authorize is None:
                return decision.verdict
            return await self._in_time(
                authorized, options.authorize, decision.request, decision.verdict
            )
        assert options.http is not None
        self._may_turn_away = False  # no new connection comes of it, and it is nearly done
        return await self._in_time(page, options.http, decision.request)

    async def _read_head(self) -> UpgradeRequest | Refusal | None:
        machine = self._machine
        while True:
            event = machine.next_event()
            if event is HandshakeEvent.PEER_GONE:
                log.debug("%s left without a word", self.peer)
                return None
            if not isinstance(event, HandshakeEvent):
                return event
            machine.receive_data(await self._receive())

    async def _receive(self) -> bytes:
        wire = self._wire
        if wire.immediate is False:
            return bytes(await self._in_time(self._stream.receive_some, READ_SIZE))
        # It has often arrived; what need not wait should cost no turn of the scheduler.
        while (data := wire.read_now(at_most=READ_SIZE)) is None:
            await self._in_time(wire.readable)
        return data

    # -- answering -------------------------------------------------------------------------------

    async def _switch(self, accept: Accept) -> Opened | Refusal:
        """Say 101 (RFC 6455 section 4.2.2)."""
        request = self._request
        assert request is not None
        agreement = None
        if self._options.compression is not None:
            offers = request.header_all(b"sec-websocket-extensions")
            agreement = choose_offer_untrusted(self._options.compression, offers)
        extensions = None if agreement is None else agreement.answer
        try:
            head = switching_protocols(request, accept, extensions)
        except ValueError as exc:
            return authorize_failed(exc)
        await trio.lowlevel.checkpoint_if_cancelled()
        self._check_patience()  # `authorize` may have taken no notice
        self._may_answer = self._may_turn_away = False
        await self._send(head)
        return Opened(
            stream=self._stream,
            request=request,
            accept=accept,
            compression=agreement,
            trailing_data=self._machine.trailing_data,
        )

    async def _send(self, head: bytes) -> None:
        wire = self._wire
        if wire.immediate is False:
            await self._in_time(self._stream.send_all, head)
            return
        left = memoryview(head)
        while (written := wire.write_now([left])) < len(left):
            left = left[written:]
            await self._in_time(wire.wait_writable)

    async def _deliver(self, answer: Response) -> None:
        """Have `answer` delivered, all within ``limits.close_timeout``."""
        head_only = self._request is not None and self._request.method == b"HEAD"
        text = http_response(answer, head_only=head_only)
        with trio.move_on_after(self._options.limits.close_timeout):
            await deliver(self._stream, text, read_size=READ_SIZE)
