"""Connecting again and again: `reconnect`.

Lives here: which failures are tried again, and when. Must never live here: how one connection is
opened or closed (`_client`).

The shape: a ``with`` that owns, and a loop that is plain. Whatever leaves the loop body (`break`,
an exception, cancellation), the current connection is closed before the ``with`` returns; an
asynchronous generator alone could not promise that (PEP 789).
"""

from __future__ import annotations

import random
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Unpack

import trio

from ._attempt import open_connection
from ._attendant import Attendant
from ._client import check_arguments, end_after, end_in_peace, start_conversation
from ._errors import HandshakeError, Rejected
from ._instruments import watchers_of
from ._services import open_services

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from ._client_options import ClientKeywords, ClientOptions
    from ._connection import Connection
    from ._services import Services
    from ._url import WebSocketURL
    from ._websocket import WebSocket

__all__ = ["reconnect", "worth_retrying"]

FIRST_DELAY = 1.0
LONGEST_DELAY = 60.0
"""Seconds within which the first retry, and each after many, falls by chance: a server that comes
back after a minute must not meet all its clients at once."""

STABLE_AFTER = 30.0
"""Seconds a connection must have lived for the next failure to count as the first again."""

TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses that say "not now" and not "never" (RFC 9110 section 15)."""


def worth_retrying(exc: HandshakeError) -> bool:
    """Whether trying again may help: the default of `reconnect`.

    True for anything that kept the connection from being opened (name resolution, TCP, proxy,
    time, a broken response) and for responses 408, 425, 429, 500, 502, 503 and 504. False for any
    other response (401, 403, 404: it will be the same), for a certificate that cannot be trusted,
    and where a proxy is asked for and the extra for it is not installed.
    """
    if isinstance(exc, Rejected):
        return exc.response.status in TRANSIENT
    return not isinstance(exc.__cause__, (ssl.SSLCertVerificationError, ImportError))


class Reconnecting:
    """The connections of one `reconnect`, one after another. Iterate over it, in one task."""

    def __init__(
        self,
        url: WebSocketURL,
        options: ClientOptions,
        services: Services,
        retry: Callable[[HandshakeError], bool],
    ) -> None:
        self._url = url
        self._options = options
        self._services = services
        self._attendant = Attendant(options.limits, services)
        self._watchers = watchers_of(options.instruments)
        self._retry = retry
        self._over = False
        self._failures = 0
        self._asked_for = 0.0
        self._opened_at = 0.0
        self._current: Connection | None = None

    def __aiter__(self) -> Reconnecting:
        return self

    @trio.lowlevel.enable_ki_protection
    async def __anext__(self) -> WebSocket:
        """Close the current connection, wait as long as the backoff says, open the next one.

        Raises:
            HandshakeError: one that `retry` says no to.
            RuntimeError: the ``with`` has ended.
        """
        if self._over:
            raise RuntimeError("the with that owns these connections has ended")
        await self.end_current()
        while True:
            await self._wait()
            try:
                opened = await open_connection(self._url, self._options)
            except HandshakeError as exc:
                if not self._retry(exc):
                    raise
                self._failures += 1
                self._asked_for = _retry_after(exc)
                continue
            self._opened_at = trio.current_time()
            ws, self._current = start_conversation(
                opened, self._options, self._services, self._attendant, self._watchers
            )
            return ws

    async def end_current(self) -> None:
        """Close the current connection with 1000, if there is one."""
        if self._current is None:
            return
        current, self._current = self._current, None
        # A connection that ended soon counts as a failure: a server that accepts and closes must
        # not be asked in a tight loop.
        stable = trio.current_time() - self._opened_at >= STABLE_AFTER
        self._failures = 1 if stable else self._failures + 1
        self._asked_for = 0.0
        await end_in_peace(current, self._options)

    async def _wait(self) -> None:
        """Full jitter: anywhere between now and a bound that doubles with each failure. What a
        server asked for comes on top: it asked all of its clients for the same."""
        if not self._failures:
            return
        bound = min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(self._failures - 1, 30))
        await trio.sleep(self._asked_for + random.uniform(0, bound))  # noqa: S311

    async def end(self, raised: BaseException | None) -> None:
        """Close the current connection as it befits what the block raised."""
        self._over = True
        if raised is None:
            await self.end_current()
        elif self._current is not None:
            await end_after(self._current, raised, self._options)


def _retry_after(exc: HandshakeError) -> float:
    """The seconds a server asks us to stay away (RFC 9110 section 10.2.3), within our bound."""
    value = exc.response.header("retry-after") if isinstance(exc, Rejected) else None
    if value is None or not value.isdigit() or len(value) > 6:
        return 0.0
    return min(float(value), LONGEST_DELAY)


@asynccontextmanager
@trio.lowlevel.enable_ki_protection
async def reconnect(
    url: str,
    *,
    retry: Callable[[HandshakeError], bool] = worth_retrying,
    **options: Unpack[ClientKeywords],
) -> AsyncIterator[Reconnecting]:
    """Connect to `url` again and again::

        async with reconnect("wss://example.com/feed") as connections:
            async for ws in connections:
                try:
                    async for message in ws:
                        ...
                except ConnectionLost:
                    pass  # the loop goes on with the next connection

    The loop body runs once for each connection and is a plain body: `break`, an exception and
    cancellation leave it as they leave any other. When the body ends, the loop closes its
    connection and opens the next: at once the first time, then after a random delay whose bound
    doubles from 1 s to 60 s with each failure, and starts again after a connection that lived for
    30 s (RFC 6455 section 7.2.3). A server's ``Retry-After`` in seconds is respected, up to 60 s.

    Args:
        url: as in `connect`.
        retry: asked about each `HandshakeError`; False ends the loop with it. See
            `worth_retrying`.
        **options: see `ClientOptions`.

    Raises:
        InvalidURL, ValueError, TypeError: an argument is wrong.
        HandshakeError: from the loop, one that `retry` says no to.
        Whatever the block raises, as the very object, in no group of ours. A `ConnectionClosed`
        that the body does not catch is one of them.

    The ``with`` owns everything: before it returns, the current connection is closed as `connect`
    would close it: with 1000, with 1011 if the block raised, with `cancel_code` if it was
    cancelled. Cancelled while waiting or opening: nothing stays open.
    """
    target, checked = check_arguments(url, options)
    async with open_services() as services:
        connections = Reconnecting(target, checked, services, retry)
        try:
            yield connections
        except BaseException as exc:
            await connections.end(exc)
            raise
        await connections.end(None)
