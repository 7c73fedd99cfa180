"""The doors of a server: `serve`, `serve_listeners`, `serve_stream`, and the `Server` they report.

Lives here: arguments, and which parts are put together. Must never live here: the parts. Each door
is thin: `serve` opens listeners for `serve_listeners`, which runs for each accepted stream what
`serve_stream` runs for one.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any, Unpack

import trio

from ._accepting import Slot, Slots, accept_forever
from ._life import Lives
from ._listeners import open_tcp_listeners
from ._options import Handler, ServerKeywords, ServerOptions
from ._services import open_services

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._websocket import WebSocket

__all__ = ["Server", "serve", "serve_listeners", "serve_stream"]


class Server:
    """A running server: the value of ``task_status.started``.

    Attributes:
        listeners: what it accepts from, in the order given; the server owns and closes them.
    """

    def __init__(self, listeners: Sequence[trio.abc.Listener[Any]], lives: Lives) -> None:
        self.listeners: tuple[trio.abc.Listener[Any], ...] = tuple(listeners)
        self._lives = lives
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
        """The connections past their handshake whose handler or socket still lives, as of now."""
        return frozenset(self._lives.open)

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

    Cancellation is the way to stop it: see `serve_listeners`. It never returns by itself.
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

    Cancellation is the way to stop it. Listeners close; peers still in their handshake are
    closed without a word; every other peer is sent a Close frame with `cancel_code`, all at once,
    and has until `Limits.cancel_grace` to answer: one grace for all of them. Then their sockets
    are closed, also if a handler shields itself from the cancellation, and `trio.Cancelled` goes
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
    checked = _check(handler, None, options)
    async with open_services() as services:
        lives = Lives(handler, checked, services)
        await lives.run(lives.live, stream)


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
            server = Server(listeners, lives)
            await lives.run(_accept_everywhere, server, lives, ssl_context, task_status)
    finally:
        for listener in listeners:
            await trio.aclose_forcefully(listener)


@trio.lowlevel.enable_ki_protection
async def _accept_everywhere(
    server: Server,
    lives: Lives,
    ssl_context: ssl.SSLContext | None,
    task_status: trio.TaskStatus[Server],
) -> None:
    """Accept from all listeners and run a life for each stream, until cancelled."""
    slots = Slots(lives.options.limits, lives.options.policy)

    async def live(stream: trio.abc.Stream, slot: Slot) -> None:
        try:
            await lives.live(stream, slot.capacity)
        finally:
            slot.release()

    def start(stream: trio.abc.Stream, slot: Slot) -> None:
        if ssl_context is not None:
            stream = trio.SSLStream(stream, ssl_context, server_side=True, https_compatible=True)
        lives.start(live, stream, slot)

    for listener in server.listeners:
        lives.start(accept_forever, listener, slots, start)
    task_status.started(server)
    await trio.sleep_forever()
