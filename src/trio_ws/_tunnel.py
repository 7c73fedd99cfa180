"""Reaching a server: directly, or through a proxy (RFC 6455 section 4.1, steps 2 and 3).

Lives here: which proxy is meant, and the TCP stream to the server or through it. Must never live
here: TLS to the server, the handshake. Proxies are spoken to by python-socks, an extra
(``trio_ws[proxy]``): SOCKS4, SOCKS5 and HTTP CONNECT are a field of their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import trio

from ._errors import HandshakeError

if TYPE_CHECKING:
    from ._url import WebSocketURL

_SCHEMES = ("http", "socks4", "socks4a", "socks5", "socks5h")


def proxy_for(url: WebSocketURL, proxy: str | None) -> str | None:
    """The proxy to use for `url`: None for none.

    Args:
        proxy: "env" looks at the usual environment variables (``wss_proxy``, ``https_proxy``,
            ``all_proxy``, or ``ws_proxy``, ``http_proxy``, ``all_proxy``; and ``no_proxy``); a URL
            names one; None is none.

    Raises:
        ValueError: it names a kind of proxy that is not known.
    """
    if proxy == "env":
        named = getproxies()
        names = ("wss", "https", "all") if url.secure else ("ws", "http", "all")
        found = next((named[name] for name in names if named.get(name)), None)
        if found is None or proxy_bypass(url.authority):
            return None
        proxy = found if "://" in found else f"http://{found}"
    if proxy is not None and urlsplit(proxy).scheme.lower() not in _SCHEMES:
        # Not the URL: it may hold a password.
        known = ", ".join(_SCHEMES)
        raise ValueError(f"a proxy's URL starts with one of {known}, followed by ://")
    return proxy


async def reach(url: WebSocketURL, proxy: str | None) -> trio.SocketStream:
    """A TCP stream to the server of `url`, directly (happy eyeballs) or through `proxy`.

    Raises:
        OSError: it cannot be reached, or its name cannot be resolved.
        HandshakeError: the proxy refuses, or the extra is missing.

    Cancelled: nothing stays open.
    """
    if proxy is None:
        return await trio.open_tcp_stream(url.host, url.port)
    try:
        from python_socks import ProxyError, ProxyTimeoutError  # noqa: PLC0415  an extra
        from python_socks.async_.trio import Proxy  # noqa: PLC0415
    except ImportError as exc:
        raise HandshakeError(
            'a proxy is asked for, and python-socks is not installed: pip install "trio_ws[proxy]"'
            ", or say proxy=None"
        ) from exc
    scheme, separator, rest = proxy.partition("://")
    known = {"socks5h": "socks5", "socks4a": "socks4"}.get(scheme.lower(), scheme.lower())
    # The names that end in a letter let the proxy resolve the host's name, as HTTP proxies do.
    remote = scheme.lower() in ("socks5h", "socks4a", "http")
    through = Proxy.from_url(known + separator + rest, rdns=remote)
    try:
        socket = await through.connect(dest_host=url.host, dest_port=url.port, timeout=3600)
    except (ProxyError, ProxyTimeoutError) as exc:
        raise HandshakeError("the proxy refuses to connect to the server") from exc
    return trio.SocketStream(socket)
