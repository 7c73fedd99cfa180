"""Reaching a server: directly, or through a proxy (RFC 6455 section 4.1, steps 2 and 3).

Lives here: which proxy is meant, and the TCP stream to the server or through it. Must never live
here: TLS to the server, the handshake.

Proxies need an extra, ``trio_ws[proxy]``: SOCKS is a field of its own, which python-socks knows.
CONNECT is asked for with h11 all the same: python-socks takes the first packet of a proxy's answer
for the whole of it, and what comes later would reach the server's handshake as the server's words.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import h11
import trio

from ._errors import HandshakeError
from ._handshake import READ_SIZE
from ._headers import printable_untrusted

if TYPE_CHECKING:
    from ._url import WebSocketURL

DEFAULT_PORTS = {"http": 80, "socks4": 1080, "socks4a": 1080, "socks5": 1080, "socks5h": 1080}

MAX_HEAD = 16 * 1024
"""Bytes of a proxy's answer to CONNECT. They have a few hundred."""

MAX_INFORMATIONAL = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class ProxyURL:
    """A proxy's URL, taken apart. Its repr keeps the password."""

    scheme: str
    host: str
    port: int
    username: str = field(repr=False)
    password: str = field(repr=False)


def parse_proxy(text: str) -> ProxyURL:
    """Take a proxy's URL apart.

    Raises:
        ValueError: it is none; the message does not repeat it, for it may hold a password.
    """
    known = ", ".join(DEFAULT_PORTS)
    wrong = f"a proxy is scheme://[user:password@]host[:port], the scheme one of {known}"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(wrong) from None
    scheme = parts.scheme.lower()
    if scheme not in DEFAULT_PORTS or not parts.hostname or port == 0:
        raise ValueError(wrong)
    return ProxyURL(
        scheme=scheme,
        host=parts.hostname,
        port=port or DEFAULT_PORTS[scheme],
        username=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
    )


def proxy_for(url: WebSocketURL, proxy: str | None) -> ProxyURL | None:
    """The proxy to use for `url`: None for none.

    Args:
        proxy: "env" looks at the usual environment variables (``wss_proxy``, ``https_proxy``,
            ``all_proxy``, or ``ws_proxy``, ``http_proxy``, ``all_proxy``; and ``no_proxy``); a URL
            names one; None is none.

    Raises:
        ValueError: it is no proxy's URL, or of a kind that is not known.
    """
    if proxy is None:
        return None
    if proxy != "env":
        return parse_proxy(proxy)
    named = getproxies()
    names = ("wss", "https", "all") if url.secure else ("ws", "http", "all")
    found = next((named[name] for name in names if named.get(name)), None)
    if found is None or _bypassed(url):
        return None
    return parse_proxy(found if "://" in found else f"http://{found}")


def _bypassed(url: WebSocketURL) -> bool:
    """Whether ``no_proxy`` names the server: by its host, or by host and port, the default one
    too, or by an IPv6 address without brackets."""
    host = url.host.removesuffix(".")
    spellings = [f"[{host}]:{url.port}", host] if ":" in host else [f"{host}:{url.port}"]
    return any(proxy_bypass(spelling) for spelling in spellings)


async def reach(url: WebSocketURL, proxy: ProxyURL | None) -> trio.SocketStream:
    """A TCP stream to the server of `url`, directly (happy eyeballs) or through `proxy`.

    Raises:
        OSError: it cannot be reached, or its name cannot be resolved.
        HandshakeError: the proxy refuses, or the extra is missing.

    Cancelled: nothing stays open.
    """
    if proxy is None:
        return await trio.open_tcp_stream(url.host, url.port)
    try:
        import python_socks  # noqa: PLC0415  an extra
        from python_socks.async_.trio import Proxy  # noqa: PLC0415
    except ImportError as exc:
        raise HandshakeError(
            'a proxy is asked for, and python-socks is not installed: pip install "trio_ws[proxy]"'
            ", or say proxy=None"
        ) from exc
    if proxy.scheme == "http":
        return await _through_http(url, proxy)
    kind = proxy.scheme[: len("socks4")].upper()
    # The names that end in a letter let the proxy resolve the host's name.
    through = Proxy(
        proxy_type=python_socks.ProxyType[kind],
        host=proxy.host,
        port=proxy.port,
        username=proxy.username,
        password=proxy.password,
        rdns=proxy.scheme in ("socks4a", "socks5h"),
    )
    try:
        # Its own timeout is a minute; the whole attempt has one already.
        socket = await through.connect(dest_host=url.host, dest_port=url.port, timeout=1e6)
    except (python_socks.ProxyError, ValueError) as exc:  # ValueError: garbage, as it meets it
        why = printable_untrusted(str(exc)) if isinstance(exc, python_socks.ProxyError) else "?"
        raise HandshakeError(f"the proxy does not connect us to the server: {why}") from exc
    return trio.SocketStream(socket)


async def _through_http(url: WebSocketURL, proxy: ProxyURL) -> trio.SocketStream:
    stream = await trio.open_tcp_stream(proxy.host, proxy.port)
    try:
        await _ask_for_tunnel(stream, url, proxy)
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


async def _ask_for_tunnel(stream: trio.SocketStream, url: WebSocketURL, proxy: ProxyURL) -> None:
    """HTTP CONNECT (RFC 9110 section 9.3.6)."""
    where = f"[{url.host}]:{url.port}" if ":" in url.host else f"{url.host}:{url.port}"
    headers = [("Host", where)]
    if proxy.username:
        pair = f"{proxy.username}:{proxy.password}".encode()
        headers.append(("Proxy-Authorization", f"Basic {base64.b64encode(pair).decode()}"))
    parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
    request = h11.Request(method="CONNECT", target=where, headers=headers)
    await stream.send_all((parser.send(request) or b"") + (parser.send(h11.EndOfMessage()) or b""))
    informational = 0
    while informational <= MAX_INFORMATIONAL:
        try:
            event = parser.next_event()
        except h11.RemoteProtocolError as exc:
            words = printable_untrusted(str(exc))
            raise HandshakeError(f"the proxy's answer is not HTTP: {words}") from exc
        if event is h11.NEED_DATA:
            parser.receive_data(bytes(await stream.receive_some(READ_SIZE)))
        elif isinstance(event, h11.InformationalResponse):
            informational += 1
        elif isinstance(event, h11.Response):
            if not 200 <= event.status_code <= 299:
                raise HandshakeError(f"the proxy answered {event.status_code}")
            break
    if informational > MAX_INFORMATIONAL or parser.trailing_data[0]:
        raise HandshakeError("the proxy sent more than an answer")  # a server does not speak first
