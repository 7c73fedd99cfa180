"""The doors of a client: `connect` and `connect_stream`.

Lives here: the life of a connection around the caller's block. Must never live here: opening it
(`_attempt`), trying again (`_reconnect`).

How the block ends decides the Close frame (returned: 1000, cancelled: 1001, raised: 1011), and what
it raised comes out as the very object it was, in no group of ours.

Everything here is protected from KeyboardInterrupt, the block is not: one arrives in the block or
at an await, and never between a socket and the line that takes care of it.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Unpack

import trio

from ._attempt import Attempt, Opened, open_connection
from ._attendant import Attendant
from ._client_options import ClientKeywords, ClientOptions
from ._connection import Connection
from ._instruments import watchers_of
from ._outcome import Outcome, how_it_ended
from ._permessage import PerMessageDeflate
from ._services import open_services
from ._transport import addresses_of
from ._tunnel import proxy_for
from ._url import parse_url
from ._websocket import WebSocket

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ._instruments import Watchers
    from ._services import Services
    from ._url import WebSocketURL

__all__ = ["connect", "connect_stream"]


@asynccontextmanager
@trio.lowlevel.enable_ki_protection
async def connect(url: str, **options: Unpack[ClientKeywords]) -> AsyncIterator[WebSocket]:
    """Open a WebSocket to `url` (RFC 6455 section 4.1) for the time of the block::

        async with connect("wss://example.com/chat") as ws:
            await ws.send("hello")

    Args:
        url: ``ws://`` or ``wss://``; no user, no fragment.
        **options: see `ClientOptions`.

    Raises:
        InvalidURL, ValueError, TypeError: an argument is wrong; nothing was opened.
        Rejected: the server answered with something else than 101; `Rejected.response` says what.
        HandshakeError: anything else went wrong before the connection was open: name resolution,
            TCP, TLS, the proxy, time, a server that breaks the rules. The cause is chained.
        Whatever the block raises, as the very object, in no group of ours.

    The block owns the conversation and this function the connection: it is closed when the block
    ends, with 1000, with 1011 if the block raised, with `cancel_code` if it was cancelled; the
    latter two within `Limits.cancel_grace`. A `ConnectionClosed` of this very connection is no
    failure of the block, but comes out of it like any other exception.

    Cancelled while opening: nothing stays open.
    """
    target, checked = check_arguments(url, options)
    async with open_services() as services:
        opened = await open_connection(target, checked)
        async with conversation(opened, checked, services) as ws:
            yield ws


@asynccontextmanager
@trio.lowlevel.enable_ki_protection
async def connect_stream(
    stream: trio.abc.Stream, url: str, **options: Unpack[ClientKeywords]
) -> AsyncIterator[WebSocket]:
    """Open a WebSocket over a stream that exists: a unix socket, a tunnel, memory.

    Args:
        stream: connected to the server, TLS included if there shall be any (a `trio.SSLStream`
            before or after its handshake); owned once the arguments are found good, and closed when
            the block ends or the handshake fails.
        url: whose host and target the request names.
        **options: see `ClientOptions`; `ssl_context`, `redirects` and a proxy are a ValueError.

    Raises, cancellation: as `connect`.
    """
    target, checked = parse_url(url), ClientOptions(**options)
    if checked.ssl_context is not None or checked.redirects or checked.proxy not in {"env", None}:
        raise ValueError("over a given stream there is no TLS, redirect or proxy to be had")
    async with open_services() as services:
        attempt = Attempt(target, checked)
        opened = await attempt.within_time(attempt.shake_hands, stream)
        async with conversation(opened, checked, services) as ws:
            yield ws


# -- the conversation ----------------------------------------------------------------------------


def check_arguments(url: str, options: ClientKeywords) -> tuple[WebSocketURL, ClientOptions]:
    """What `connect` and `reconnect` were given, or the error that says what is wrong with it."""
    target, checked = parse_url(url), ClientOptions(**options)
    if checked.ssl_context is not None and not target.secure and not checked.redirects:
        raise ValueError("an ssl_context with a ws:// URL: nothing would be encrypted; say wss://")
    proxy_for(target, checked.proxy)
    return target, checked


@asynccontextmanager
async def conversation(
    opened: Opened, options: ClientOptions, services: Services
) -> AsyncIterator[WebSocket]:
    """The life of an opened connection around a block; it is gone when this ends."""
    attendant, watchers = Attendant(options.limits, services), watchers_of(options.instruments)
    ws, connection = start_conversation(opened, options, services, attendant, watchers)
    try:
        yield ws
    except BaseException as exc:
        await end_after(connection, exc, options)
        raise
    await end_in_peace(connection, options)


def start_conversation(
    opened: Opened,
    options: ClientOptions,
    services: Services,
    attendant: Attendant,
    watchers: Watchers | None,
) -> tuple[WebSocket, Connection]:
    """The connection over an opened stream, with somebody to look after it."""
    limits, agreed = options.limits, opened.agreed
    connection = Connection(
        opened.stream,
        client=True,
        limits=limits,
        services=services,
        extensions=PerMessageDeflate.agreed(
            agreed.compression, options.compression, client=True, max_message=limits.max_message
        ),
        trailing_data=agreed.trailing_data,
    )
    attendant.watch(connection)
    peer_address, local_address = addresses_of(opened.stream)
    request = replace(
        opened.handshake.request, peer_address=peer_address, local_address=local_address
    )
    ws = WebSocket(
        connection,
        request=request,
        response=agreed.response,
        subprotocol=agreed.subprotocol,
        watchers=watchers,
    )
    if watchers is not None:
        connection.on_end = partial(_tell_end, ws, connection, watchers)
        watchers.opened(ws)
    return ws, connection


def _tell_end(ws: WebSocket, connection: Connection, watchers: Watchers) -> None:
    assert connection.closed is not None
    connection.on_end = None  # it holds `ws`, which holds the connection
    watchers.closed(ws, connection.closed, connection.cause)


async def end_after(connection: Connection, raised: BaseException, options: ClientOptions) -> None:
    """Close as it befits what the block raised."""
    outcome = how_it_ended(raised, connection.closed)
    if outcome is Outcome.RETURNED:
        await end_in_peace(connection, options)
    elif outcome is Outcome.ERROR:
        await end_in_haste(connection, 1011, "", options)
    else:
        await end_in_haste(connection, options.cancel_code, options.cancel_reason, options)


async def end_in_peace(connection: Connection, options: ClientOptions) -> None:
    """Close with 1000, within `close_timeout`; cancelled, in haste."""
    connection.start_close(1000)
    try:
        await connection.wait_gone()
    except BaseException:
        await end_in_haste(connection, options.cancel_code, options.cancel_reason, options)
        raise


async def end_in_haste(
    connection: Connection, code: int, reason: str, options: ClientOptions
) -> None:
    """Close with `code` within `cancel_grace`, whoever is cancelled, and then by force."""
    with trio.CancelScope(shield=True):
        with trio.move_on_after(options.limits.cancel_grace):
            connection.start_close(code, reason)
            await connection.wait_gone()
        connection.kill()
        await connection.wait_gone()
