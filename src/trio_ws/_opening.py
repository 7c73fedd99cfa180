"""The I/O of one opening handshake (RFC 6455 section 4.2), from the first byte to 101 or the end.

Lives here: TLS, reading the head, asking the application, the deadline over all of it, delivering a
refusal so that the client can read it. Must never live here: a rule about requests (`_checks`,
`_handshake`), frames, or the handler.

Four things may end a handshake from outside, and differ in what the client sees. The deadline: 408
while the head is incomplete, 503 from then on; nothing during TLS, or once the 101 is being
written. A drain: 503 at once, also while the head is incomplete; but TLS, a page in the making, and
a 101 on its way go on, within the deadline. Cancellation: not a byte more. A client that is gone:
nothing to see.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

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
from ._outcome import Outcome, holds_error, how_it_ended, interruptible
from ._policy import decide
from ._reports import peer_name
from ._request import Address, UpgradeRequest
from ._response import Accept, Refusal, Response, refined, refuse
from ._routes import Routes

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._deflate import Agreement
    from ._entrance import Entrance
    from ._options import Handler, ServerOptions

__all__ = ["HeadRead", "Opened", "opening_handshake"]

Capacity: TypeAlias = "Callable[[UpgradeRequest], Response | None]"

log = logging.getLogger("trio_ws.handshake")

DRAIN_BUDGET = 256 * 1024
"""Bytes read and dropped behind a refusal: closing a socket with unread input resets it, and a
reset may overtake the response. Whoever sends more than this is not waiting for an answer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Opened:
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
        peer_address, local_address = addresses_of(stream)
        self.peer = peer_name(peer_address)
        self._stream = stream
        self._options = options
        self._routes = handler if isinstance(handler, Routes) else None
        self._capacity = capacity
        self._entrance = entrance
        self._machine: HeadRead | ServerHandshake = head or ServerHandshake(
            limits=options.limits,
            tls=isinstance(stream, trio.SSLStream),
            peer_address=peer_address,
            local_address=local_address,
        )
        self._request: UpgradeRequest | None = None
        self._may_answer = not isinstance(stream, trio.SSLStream)
        self._patience = trio.CancelScope()
        self._may_turn_away = False

    async def run(self) -> Opened | None:
        """The whole handshake."""
        answer: Opened | Accept | Response | None = None
        self._patience.deadline = trio.current_time() + self._options.limits.handshake_timeout
        with self._patience:
            answer = await self._find_answer()
            if isinstance(answer, Accept):
                answer = await self._switch(answer)
        if self._patience.cancelled_caught:
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
        if self._may_turn_away:
            self._patience.cancel()

    # -- finding the answer ----------------------------------------------------------------------

    async def _find_answer(self) -> Accept | Response | None:
        """What to tell the client; None if there is nobody to tell."""
        if isinstance(self._stream, trio.SSLStream):
            await self._stream.do_handshake()
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
        if isinstance(decision.verdict, Accept):
            return await self._authorize(decision.request, decision.verdict)
        return await self._plain_page(decision.request)

    async def _read_head(self) -> UpgradeRequest | Refusal | None:
        machine = self._machine
        while True:
            event = machine.next_event()
            if event is HandshakeEvent.PEER_GONE:
                log.debug("%s left without a word", self.peer)
                return None
            if not isinstance(event, HandshakeEvent):
                return event
            machine.receive_data(bytes(await self._stream.receive_some(READ_SIZE)))

    async def _authorize(self, request: UpgradeRequest, accept: Accept) -> Accept | Refusal:
        if self._options.authorize is None:
            return accept
        said, error = await ask(self._options.authorize, request)
        if error is not None:
            return authorize_failed(error)
        if said is None:
            return accept
        if isinstance(said, Accept):
            return refined(accept, said)
        if isinstance(said, Response):
            return Refusal(said, "authorize")
        kinds = "a Response, an Accept or None"
        return authorize_failed(
            TypeError(f"authorize must return {kinds}, not {type(said).__name__}")
        )

    async def _plain_page(self, request: UpgradeRequest) -> Response:
        assert self._options.http is not None
        self._may_turn_away = False  # no new connection comes of it, and it is nearly done
        said, error = await ask(self._options.http, request)
        if error is None and not isinstance(said, Response):
            error = TypeError(f"http must return a Response, not {type(said).__name__}")
        if error is not None:
            return refuse("plain", 500, "the server has a problem with this page", error=error)
        assert isinstance(said, Response)
        return said

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
        self._may_answer = self._may_turn_away = False
        await self._stream.send_all(head)
        return Opened(
            stream=self._stream,
            request=request,
            accept=accept,
            compression=agreement,
            trailing_data=self._machine.trailing_data,
        )

    async def _deliver(self, answer: Response) -> None:
        """Send `answer` so that the client can read it, all within ``limits.close_timeout``: shut
        the sending side behind it, and drain what the client still sends before closing."""
        head_only = self._request is not None and self._request.method == b"HEAD"
        with trio.move_on_after(self._options.limits.close_timeout):
            await self._stream.send_all(http_response(answer, head_only=head_only))
            # TLS has no half-close that does not wait for the peer. Content-Length ends the
            # response already; the FIN below is for clients that wait for it.
            transport = transport_of(self._stream)
            if isinstance(transport, trio.abc.HalfCloseableStream):
                await transport.send_eof()
            left = DRAIN_BUDGET
            while left > 0:
                data = await self._stream.receive_some(READ_SIZE)
                if not data:
                    return
                left -= len(data)


async def ask(
    hook: Callable[[UpgradeRequest], Any], request: UpgradeRequest
) -> tuple[Any, Exception | None]:
    """Call the application's hook: what it returned, and the error it raised.

    Raises only what is no error: Cancelled, KeyboardInterrupt and their like.
    """
    try:
        return await interruptible(hook, request), None
    except Exception as exc:  # noqa: BLE001  the caller's to log, with its row
        return None, exc
    except BaseExceptionGroup as exc:
        if how_it_ended(exc) is Outcome.CANCELLED and holds_error(exc):
            log.exception("a hook failed while it was being cancelled")
            await trio.lowlevel.checkpoint_if_cancelled()
        raise


def transport_of(stream: trio.abc.Stream) -> trio.abc.Stream:
    """What lies under the TLS layers of `stream`."""
    while isinstance(stream, trio.SSLStream):
        stream = stream.transport_stream
    return stream


def addresses_of(stream: trio.abc.Stream) -> tuple[Address, Address]:
    """The peer's and our own address; None where the stream has none, or has it no more."""
    transport = transport_of(stream)
    if not isinstance(transport, trio.SocketStream):
        return None, None
    return (
        _address(transport.socket.getpeername),
        _address(transport.socket.getsockname),
    )


def _address(ask_socket: Callable[[], Any]) -> Address:
    try:
        address = ask_socket()
    except OSError:  # a peer that is gone already has no address
        return None
    if isinstance(address, tuple):
        return address[0], address[1]
    # Linux's abstract names are bytes.
    return address.decode("latin-1") if isinstance(address, bytes) else str(address)
