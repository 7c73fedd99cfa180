"""The doors of a server: `serve`, `serve_listeners`, `serve_stream`, and the `Server` they report.

Lives here: arguments, and which parts are put together. Must never live here: the parts. Each door
is thin: `serve` opens listeners for `serve_listeners`, which runs for each accepted stream what
`serve_stream` runs for one.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any, Unpack

import h11
import trio

from ._accepting import Slot, Slots, accept_forever
from ._close import check_outgoing_close
from ._draining import Drain
from ._handshake import upgrade_request
from ._life import Lives
from ._listeners import open_tcp_listeners
from ._opening import HeadRead
from ._options import Handler, ServerKeywords, ServerOptions
from ._services import open_services
from ._transport import addresses_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._request import Address
    from ._stats import ServerStats
    from ._websocket import WebSocket

__all__ = ["Server", "serve", "serve_listeners", "serve_stream", "serve_upgrade"]


class Server:
    """A running server: the value of ``task_status.started``.

    Attributes:
        listeners: what it accepts from, in the order given; the server owns and closes them.
    """

    def __init__(
        self, listeners: Sequence[trio.abc.Listener[Any]], lives: Lives, slots: Slots
    ) -> None:
        self.listeners: tuple[trio.abc.Listener[Any], ...] = tuple(listeners)
        self._lives = lives
        self._slots = slots
        self._drain: Drain | None = None
        self._ports = _tcp_ports(self.listeners)

    @property
    def port(self) -> int:
        """The TCP port that all its TCP listeners share.

        Raises:
            RuntimeError: there is no such port: no TCP listener, or several ports.
        """
        if len(self._ports) != 1:
            found = ", ".join(map(str, sorted(self._ports))) or "none"
            raise RuntimeError(f"no single TCP port (found: {found}); look at Server.listeners")
        return next(iter(self._ports))

    @property
    def connections(self) -> frozenset[WebSocket]:
        """The connections past their handshake whose handler or socket still lives: a snapshot, the
        server's own objects in it."""
        return frozenset(self._lives.open)

    def stats(self) -> ServerStats:
        """What the server has done so far and holds now, as a frozen snapshot. It costs about a
        microsecond for each open connection; between snapshots nothing is counted for it."""
        return self._lives.stats()

    @trio.lowlevel.enable_ki_protection
    async def drain(
        self, grace: float, *, code: int = 1001, reason: str = "", spread: float = 0
    ) -> tuple[Address, ...]:
        """End the server politely; `serve` then returns.

        From the moment of the call nothing new is let in. Listeners are closed, after what queues
        at them was accepted to be told; handshakes under way are answered with 503 (a page that
        ``http`` is making is still delivered). Every open connection is closed with `code`, and the
        peer has what is left of `grace` to answer, but at most `Limits.close_timeout`. Handlers see
        their connection end, and have what is left of `grace` to finish; then they are cancelled.
        A handler that drains its own server is one of them: it waits for itself, all the grace.

        Args:
            grace: seconds for all of it, `spread` included. What is left then is closed at once, as
                if the server were cancelled with no `Limits.cancel_grace`.
            code: close code for the peers (RFC 6455 section 7.4); 1001 is "going away", 1012 says
                that the service restarts.
            reason: goes with `code`; at most 123 bytes of UTF-8.
            spread: seconds over which the connections are closed, one by one and evenly, so that
                their clients do not all come back at the same time. Until then they go on working.

        Returns:
            The addresses of the peers whose connections had to be cut off, in no order; usually
            none. It returns as soon as everything is over, or `grace` is.

        Raises:
            ValueError: `grace` or `spread` is negative, or `code` or `reason` cannot be sent;
                nothing happens.

        A second call joins the first: of grace and of spread the earlier end counts, `code` and
        `reason` are the first one's. Called when the server has ended, it returns at once.

        Cancelled: the drain goes on without you. If the server is cancelled during a drain,
        `Limits.cancel_grace` is what the peers are left, as without a drain.
        """
        for name, seconds in (("grace", grace), ("spread", spread)):
            if not seconds >= 0:  # refuses NaN, too
                raise ValueError(f"{name} must be a number of seconds, not {seconds!r}")
        check_outgoing_close(code, reason)
        lives = self._lives
        if self._drain is not None:
            self._drain.join(grace, spread)
        elif not lives.over.is_set():
            lives.farewell = (code, reason)
            lives.entrance.close()
            self._slots.stop()
            self._drain = Drain(lives, grace, spread)
            lives.start(self._drain.run)
        await lives.over.wait()
        return tuple(lives.left.values())

    def __repr__(self) -> str:
        return f"<Server {list(self.listeners)!r}, {len(self._lives.open)} connections>"


def _tcp_ports(listeners: Sequence[trio.abc.Listener[Any]]) -> set[int]:
    ports = set()
    for listener in listeners:
        below = listener.transport_listener if isinstance(listener, trio.SSLListener) else listener
        if isinstance(below, trio.SocketListener):
            address = below.socket.getsockname()
            if isinstance(address, tuple):
                ports.add(address[1])
    return ports


async def serve(
    handler: Handler,
    port: int,
    *,
    host: str | bytes | None = None,
    ssl_context: ssl.SSLContext | None = None,
    backlog: int | None = None,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
    **options: Unpack[ServerKeywords],
) -> None:
    """Serve WebSockets on a TCP port, like `trio.serve_tcp`.

    Args:
        handler: ``await handler(ws)`` runs as a task of its own for each connection; a `Routes` is
            one. When it returns, the connection closes with 1000; when it raises, the exception is
            logged and the connection closes with 1011. See `serve_listeners`.
        port: to listen on; 0 for a free one, which `Server.port` tells.
        host: as in `open_tcp_listeners`: None means every interface.
        ssl_context: makes it ``wss``; of ``ssl.PROTOCOL_TLS_SERVER``, with a certificate loaded.
        backlog: as in `open_tcp_listeners`.
        task_status: ``server = await nursery.start(serve, handler, port)`` returns the `Server`
            once it listens.
        **options: see `ServerOptions`.

    Raises:
        TypeError, ValueError: an argument is wrong; nothing was opened.
        OSError: the port cannot be listened on, or a listener broke.

    It returns when `Server.drain` has finished, and never by itself. Cancellation stops it too: see
    `serve_listeners`.
    """
    checked = _check(handler, ssl_context, options)
    listeners = await open_tcp_listeners(port, host=host, backlog=backlog)
    await _serve(handler, listeners, ssl_context, checked, task_status)


async def serve_listeners(
    handler: Handler,
    listeners: Sequence[trio.abc.Listener[Any]],
    *,
    ssl_context: ssl.SSLContext | None = None,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
    **options: Unpack[ServerKeywords],
) -> None:
    """Serve WebSockets on any listeners: TCP, unix sockets, your own.

    For each accepted stream: the opening handshake (RFC 6455 section 4.2), TLS included, within
    `Limits.handshake_timeout`; then ``await handler(ws)``; then the close. Nothing that goes wrong
    with one connection reaches another.

    A handler that returns closes its connection with 1000. One that raises is logged, once, and
    its connection closes with 1011; unless `ServerOptions.raise_handler_errors` is set, which ends
    the server with that very exception. The `ConnectionClosed` of its own connection, alone or in
    a group, is a normal end; another connection's is an error. Handlers need not close ``ws``.

    Args:
        handler: see `serve`.
        listeners: from now on owned: closed when this ends, however it ends. A listener that
            somebody else closes stops accepting, with a warning in the log; the rest goes on.
        ssl_context: see `serve`. Leave it None for listeners that do TLS themselves, such as
            `trio.SSLListener`.
        task_status: reports the `Server`.
        **options: see `ServerOptions`.

    Raises:
        TypeError, ValueError: an argument is wrong; the listeners are still yours.
        Exception: what a listener's ``accept`` raises and does not pass by itself.
        KeyboardInterrupt, SystemExit: out of a handler; the other peers are told first.

    There are two ways to stop it. `Server.drain` takes the time that it is given, and lets this
    return. Cancellation is quick, and polite all the same. Listeners close; peers still in their
    handshake are closed without a word; every other peer is sent a Close frame with `cancel_code`,
    all at once, and has until `Limits.cancel_grace` to answer: one grace for all. Then their
    sockets are closed, also if a handler shields itself, and `trio.Cancelled` goes
    on as soon as the handlers are gone. What a handler raises meanwhile is logged.
    """
    checked = _check(handler, ssl_context, options)
    await _serve(handler, listeners, ssl_context, checked, task_status)


async def serve_stream(
    handler: Handler, stream: trio.abc.Stream, **options: Unpack[ServerKeywords]
) -> None:
    """Serve one WebSocket over any stream; return when it is over.

    Args:
        handler: see `serve_listeners`.
        stream: the server's end, nothing read from it yet; from now on owned, and closed when
            this ends, however it ends. A `trio.SSLStream` does its TLS handshake here, within the
            same deadline.
        **options: see `ServerOptions`; the caps on connections mean nothing here.

    Returns:
        None, also if the client was refused or went away: both are in the log.

    Raises:
        TypeError, ValueError: an argument is wrong; the stream is still yours.
        KeyboardInterrupt, SystemExit: out of the handler.
        Exception: the handler's, if `ServerOptions.raise_handler_errors` is set.

    Cancellation: as in `serve_listeners`, with a grace of its own.
    """
    await _serve_one(handler, stream, _check(handler, None, options))


async def serve_upgrade(
    handler: Handler,
    stream: trio.abc.Stream,
    request: h11.Request,
    trailing_data: bytes,
    **options: Unpack[ServerKeywords],
) -> None:
    """Serve one WebSocket whose request an HTTP server of yours has read already.

    Call it where h11 says ``PAUSED`` or a request's ``Upgrade`` header names ``websocket``, and
    touch the stream no more. Everything else is as in `serve_stream`: the whole table of the
    handshake is gone through but for the rows about the head's bytes, and if it refuses, the
    refusal is sent from here.

    Args:
        handler: see `serve_listeners`.
        stream: nothing written to it since that request; from now on owned, and closed when this
            ends, however it ends. If it is a `trio.SSLStream` the request counts as ``https``.
        request: as `h11.Connection.next_event` gave it.
        trailing_data: what was read behind its head: ``h11_connection.trailing_data[0]``. Frames
            may be among it already.
        **options: see `ServerOptions`. The deadline of the handshake begins with the call.

    Raises, returns, cancellation: as in `serve_stream`. TypeError also if `request` or
    `trailing_data` is of another type.
    """
    checked = _check(handler, None, options)
    if not isinstance(request, h11.Request):
        raise TypeError(f"request must be an h11.Request, not {request!r}")
    if not isinstance(trailing_data, (bytes, bytearray)):
        raise TypeError(f"trailing_data must be bytes, not {trailing_data!r}")
    tls = isinstance(stream, trio.SSLStream)
    peer, local = addresses_of(stream)
    asked = upgrade_request(request, tls=tls, peer_address=peer, local_address=local)
    await _serve_one(handler, stream, checked, HeadRead(asked, bytes(trailing_data)))


@trio.lowlevel.enable_ki_protection
async def _serve_one(
    handler: Handler,
    stream: trio.abc.Stream,
    options: ServerOptions,
    head: HeadRead | None = None,
) -> None:
    async with open_services() as services:
        lives = Lives(handler, options, services)
        await lives.run(lives.live, stream, None, head)


def _check(
    handler: Handler, ssl_context: ssl.SSLContext | None, options: ServerKeywords
) -> ServerOptions:
    """Refuse wrong arguments before anything happens."""
    if not callable(handler):
        raise TypeError(f"handler must be an async function, not {handler!r}")
    if ssl_context is not None and not isinstance(ssl_context, ssl.SSLContext):
        raise TypeError(f"ssl_context must be an ssl.SSLContext or None, not {ssl_context!r}")
    return ServerOptions(**options)


@trio.lowlevel.enable_ki_protection
async def _serve(
    handler: Handler,
    listeners: Sequence[trio.abc.Listener[Any]],
    ssl_context: ssl.SSLContext | None,
    options: ServerOptions,
    task_status: trio.TaskStatus[Server],
) -> None:
    listeners = tuple(listeners)
    try:
        async with open_services() as services:
            lives = Lives(handler, options, services)
            slots = Slots(options.limits, options.policy)
            server = Server(listeners, lives, slots)
            await lives.run(_accept_everywhere, server, lives, slots, ssl_context, task_status)
    finally:
        for listener in listeners:
            await trio.aclose_forcefully(listener)


@trio.lowlevel.enable_ki_protection
async def _accept_everywhere(
    server: Server,
    lives: Lives,
    slots: Slots,
    ssl_context: ssl.SSLContext | None,
    task_status: trio.TaskStatus[Server],
) -> None:
    """Accept from all listeners and run a life for each stream, until cancelled; or until the
    server drains, and its last connection is over."""

    def start(stream: trio.abc.Stream, slot: Slot) -> None:
        if ssl_context is not None:
            stream = trio.SSLStream(stream, ssl_context, server_side=True, https_compatible=True)
        lives.start(lives.live, stream, slot)

    slots.loops = len(server.listeners)
    for listener in server.listeners:
        lives.start(accept_forever, listener, slots, start)
    task_status.started(server)
    await slots.stopped.wait()
    await slots.wait_until_empty()
