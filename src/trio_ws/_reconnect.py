"""Connecting again and again: `reconnect`.

Lives here: which failures are tried again, and when. Must never live here: how one connection is
opened or closed (`_client`).

The shape: a ``with`` that owns, and a loop that is plain. Whatever leaves the loop body (`break`,
an exception, cancellation), the current connection is closed before the ``with`` returns; an
asynchronous generator alone could not promise that (PEP 789).
"""

from __future__ import annotations

import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Unpack

import trio

from ._attempt import open_connection
from ._client import end_in_haste, end_in_peace, start_conversation
from ._client_options import ClientKeywords, ClientOptions
from ._errors import HandshakeError, Rejected
from ._outcome import Outcome, how_it_ended
from ._services import open_services
from ._url import parse_url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

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
    other response (401, 403, 404: it will be the same), and for a certificate that cannot be
    trusted.
    """
    if isinstance(exc, Rejected):
        return exc.response.status in TRANSIENT
    return type(exc.__cause__).__name__ not in ("SSLCertVerificationError", "CertificateError")


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
        self._retry = retry
        self._failures = 0
        self._asked_for = 0.0
        self._opened_at = 0.0
        self._current: Connection | None = None

    def __aiter__(self) -> Reconnecting:
        return self

    async def __anext__(self) -> WebSocket:
        """Close the current connection, wait as long as the backoff says, open the next one.

        Raises:
            HandshakeError: one that `retry` says no to.
        """
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
            ws, self._current = start_conversation(opened, self._options, self._services)
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
        """Full jitter: anywhere between now and a bound that doubles with each failure."""
        if not self._failures:
            return
        bound = min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(self._failures - 1, 30))
        await trio.sleep(max(random.uniform(0, bound), self._asked_for))  # noqa: S311

    async def abandon(self, code: int, reason: str) -> None:
        """Close the current connection in haste."""
        if self._current is not None:
            await end_in_haste(self._current, code, reason, self._options)


def _retry_after(exc: HandshakeError) -> float:
    """The seconds a server asks us to stay away (RFC 9110 section 10.2.3), within our bound."""
    value = exc.response.header("retry-after") if isinstance(exc, Rejected) else None
    if value is None or not value.isdigit() or len(value) > 6:
        return 0.0
    return min(float(value), LONGEST_DELAY)


@asynccontextmanager
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
    30 s. A server's ``Retry-After`` is respected, up to 60 s.

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
    cancelled.
    """
    target, checked = parse_url(url), ClientOptions(**options)
    async with open_services() as services:
        connections = Reconnecting(target, checked, services, retry)
        try:
            yield connections
        except BaseException as exc:
            code, reason = 1011, ""
            if how_it_ended(exc) is not Outcome.ERROR:
                code, reason = checked.cancel_code, checked.cancel_reason
            await connections.abandon(code, reason)
            raise
        await connections.end_current()
