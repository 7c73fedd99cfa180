"""One attempt to open a connection: name, TCP, proxy, TLS, handshake, redirects, one deadline.

Lives here: the order of these, and the translation of their errors into `HandshakeError`, once.
Must never live here: the handshake's rules (`_client_handshake`), proxies (`_tunnel`), trying again
(`_reconnect`).
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVarTuple

import trio

from ._client_handshake import Agreed, ClientHandshake
from ._errors import HandshakeError, InvalidURL, Rejected
from ._handshake import READ_SIZE, HandshakeEvent
from ._headers import printable_untrusted
from ._tunnel import proxy_for, reach

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ._client_options import ClientOptions
    from ._response import Response
    from ._url import WebSocketURL

Ts = TypeVarTuple("Ts")

REDIRECTS = frozenset({301, 302, 303, 307, 308})
CREDENTIALS = frozenset({b"authorization", b"cookie", b"proxy-authorization"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Opened:
    """A connection that the server has agreed to. Whoever gets it owns the stream."""

    stream: trio.abc.Stream
    handshake: ClientHandshake
    agreed: Agreed


async def open_connection(url: WebSocketURL, options: ClientOptions) -> Opened:
    """Everything up to the 101: name, TCP, proxy, TLS, handshake, redirects. Raises as
    `connect`."""
    attempt = Attempt(url, options)
    return await attempt.within_time(attempt.follow)


class Attempt:
    """One attempt to open a connection, bounded in time."""

    def __init__(self, url: WebSocketURL, options: ClientOptions) -> None:
        self._url = url
        self._options = options
        self._doing = "starting"
        self._handshake = self._new_handshake()

    def _new_handshake(self) -> ClientHandshake:
        return ClientHandshake(
            self._url,
            headers=self._options.headers,
            subprotocols=self._options.subprotocols,
            compression=self._options.compression,
        )

    async def within_time(self, function: Callable[[*Ts], Awaitable[Opened]], *args: *Ts) -> Opened:
        """Run a step of the attempt under the one deadline; translate what it raises, once."""
        timeout = self._options.limits.handshake_timeout
        try:
            with trio.move_on_after(timeout):
                return await function(*args)
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise HandshakeError(f"failed while {self._doing}: {_why(exc)}") from _root(exc)
        # Made here and not caught: a TooSlowError that comes from a caller's stream is not ours.
        late = trio.TooSlowError(f"{timeout} s")
        if self._handshake.refused:
            raise Rejected(self._handshake.refusal()) from late
        raise HandshakeError(f"not open after {timeout} s: {self._doing}") from late

    async def follow(self) -> Opened:
        """Connect, shake hands, follow redirects as far as they are allowed."""
        for _ in range(self._options.redirects):
            try:
                return await self._once()
            except Rejected as exc:
                if not self._redirect(exc.response):
                    raise
        return await self._once()

    async def _once(self) -> Opened:
        self._doing = "resolving and connecting"
        tls = None
        if self._url.secure:  # before there is a stream: this may fail
            tls = self._options.ssl_context or ssl.create_default_context()
        proxy = proxy_for(self._url, self._options.proxy)
        if proxy is not None:
            self._doing = "connecting through the proxy"
        return await self.shake_hands(await reach(self._url, proxy), tls)

    async def shake_hands(
        self, stream: trio.abc.Stream, tls: ssl.SSLContext | None = None
    ) -> Opened:
        """TLS if there is any to do, the request, the response. Closes `stream` if it fails."""
        try:
            if tls is not None:
                stream = encrypted(stream, self._url, tls)
            if isinstance(stream, trio.SSLStream):
                self._doing = "agreeing on TLS"
                await stream.do_handshake()
            self._doing = "waiting for the server's response"
            await stream.send_all(self._handshake.head)
            agreed = await self._answer(stream)
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return Opened(stream=stream, handshake=self._handshake, agreed=agreed)

    async def _answer(self, stream: trio.abc.Stream) -> Agreed:
        while True:
            event = self._handshake.next_event()
            if isinstance(event, Agreed):
                return event
            if not isinstance(event, HandshakeEvent):
                raise Rejected(event)
            try:
                data = bytes(await stream.receive_some(READ_SIZE))
            except trio.BrokenResourceError:
                if not self._handshake.refused:
                    raise
                data = b""  # reset behind a refusal: its head has arrived, and that is what counts
            self._handshake.receive_data(data)

    def _redirect(self, response: Response) -> bool:
        """Aim at where `response` sends us; False if it does not, or must not be followed."""
        location = response.header("location")
        if response.status not in REDIRECTS or location is None:
            return False
        try:
            there = self._url.join(location.decode("utf-8"))
        except (InvalidURL, UnicodeDecodeError):
            return False
        if self._url.secure and not there.secure:
            return False
        if there.origin != self._url.origin:
            mine = [*CREDENTIALS, b"host"]
            kept = tuple(pair for pair in self._options.headers if _name(pair) not in mine)
            self._options = replace(self._options, headers=kept)
        self._url = there
        self._handshake = self._new_handshake()
        return True


def encrypted(
    stream: trio.abc.Stream, url: WebSocketURL, context: ssl.SSLContext
) -> trio.SSLStream[trio.abc.Stream]:
    """TLS over `stream` with the server that `url` names; its handshake is still to be done."""
    name = url.host.removesuffix(".")  # certificates and SNI have no final dot
    # Servers may leave without TLS's own goodbye; the closing handshake says whether it was one.
    return trio.SSLStream(stream, context, server_hostname=name, https_compatible=True)


def _name(pair: tuple[bytes | str, bytes | str]) -> bytes:
    name = pair[0]
    return (name.encode("latin-1") if isinstance(name, str) else name).lower()


def _root(exc: BaseException) -> BaseException:
    """The error that says most: trio wraps TLS errors and the system's in its own."""
    cause = exc.__cause__
    return cause if isinstance(exc, trio.BrokenResourceError) and cause is not None else exc


def _why(exc: BaseException) -> str:
    root = _root(exc)
    words = str(root) or type(root).__name__
    if isinstance(root, OSError) and isinstance(root.__cause__, ExceptionGroup):
        # trio tried each address of the name, and says only that all of them failed
        tried = (error for error in root.__cause__.exceptions if isinstance(error, OSError))
        words = "; ".join(dict.fromkeys(error.strerror or str(error) for error in tried)) or words
    return printable_untrusted(words)
