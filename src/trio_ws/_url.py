"""`ws:` and `wss:` URLs (RFC 6455 section 3, RFC 3986).

Lives here: taking a URL apart, once, with a clear error for what cannot be one. Must never live
here: name resolution, connections.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import quote, urljoin, urlsplit

from ._errors import InvalidURL
from ._origin import authority_untrusted

DEFAULT_PORTS = {"ws": 80, "wss": 443}

_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f\u0085\u00a0\u2028\u2029\ud800-\udfff]")
_DISPUTED = re.compile("[\u00df\u03c2\u200c\u200d]")
"""Sharp s, final sigma and the joiners: dropped or mapped by IDNA 2003, letters in IDNA 2008. To
guess would be to connect to somebody else."""

MAX_HOST = 254
"""Characters of a name in the DNS, with its final dot (RFC 1035 section 2.3.4)."""

_SAFE = "/?:@!$&'()*+,;=-._~%[]|^`{}\"\\<>"  # what may stand in a target stays as it was given


@dataclass(frozen=True, kw_only=True, slots=True)
class WebSocketURL:
    """A URL that a WebSocket can be opened to.

    Attributes:
        secure: ``wss``.
        host: lower case; an IPv6 address without brackets; an international name as A-labels.
        port: 1 to 65535, the scheme's default filled in.
        target: path and query as they stand in the request line (RFC 9112 section 3.2.1).
    """

    secure: bool
    host: str
    port: int
    target: str

    @property
    def authority(self) -> str:
        """``host[:port]`` as it stands in the `Host` header: without the default port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def scheme(self) -> str:
        """ "ws" or "wss"."""
        return "wss" if self.secure else "ws"

    @property
    def origin(self) -> tuple[str, str, int]:
        """What two URLs must share for credentials to follow a redirect."""
        return self.scheme, self.host, self.port

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.target}"

    def join(self, location: str) -> WebSocketURL:
        """The URL that a redirect to `location` names; ``http`` and ``https`` count as ``ws`` and
        ``wss``.

        Raises:
            InvalidURL: it names none.
        """
        base = str(self).replace("ws", "http", 1)
        try:
            there = urljoin(base, location)
        except ValueError:  # its message may repeat a password
            raise InvalidURL("not a valid URL to redirect to") from None
        scheme, colon, rest = there.partition(":")
        if scheme.lower() in ("http", "https"):
            there = scheme.lower().replace("http", "ws") + colon + rest
        return parse_url(there.partition("#")[0])


def parse_url(url: str) -> WebSocketURL:
    """Take `url` apart.

    Raises:
        InvalidURL: it is no WebSocket URL; the message says why. The message never repeats what
            stands before an ``@``: it may be a password.
        TypeError: it is no str.
    """
    if not isinstance(url, str):
        raise TypeError(f"a URL is a str, not {type(url).__name__}")
    if _UNPRINTABLE.search(url):
        raise InvalidURL("a URL cannot hold blanks, control characters or lone surrogates")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # its message may repeat a password
        raise InvalidURL("not a valid URL: malformed host or port") from None
    scheme = parts.scheme.lower()
    if scheme not in DEFAULT_PORTS:
        raise InvalidURL(f'a WebSocket URL starts with "ws://" or "wss://", not {scheme!r}')
    if "@" in parts.netloc:
        raise InvalidURL("user and password in a URL are not sent; use an Authorization header")
    if "#" in url:
        raise InvalidURL("a WebSocket URL has no fragment (RFC 6455 section 3); write # as %23")
    if port == 0:
        raise InvalidURL("port 0 cannot be connected to")
    return WebSocketURL(
        secure=scheme == "wss",
        host=_host(parts.hostname or "", bracketed="[" in parts.netloc),
        port=port or DEFAULT_PORTS[scheme],
        target=_target(parts.path, parts.query if "?" in url else None),
    )


def _host(host: str, *, bracketed: bool) -> str:
    if not host:
        raise InvalidURL("the URL names no host")
    if _DISPUTED.search(host):
        raise InvalidURL(f"{host!a}: IDNA 2003 and 2008 differ on this name; write it as A-labels")
    try:
        # Stops at names that no resolver knows, too: labels over 63 characters, empty ones.
        name = host if host.isascii() else host.encode("idna").decode("ascii")
    except UnicodeError as exc:
        raise InvalidURL(f"not a host name: {host!a}") from exc
    authority = authority_untrusted((f"[{name}]" if bracketed else name).encode("ascii"))
    if authority is None or len(name) > MAX_HOST:
        raise InvalidURL(f"not a host name or address: {host!a}")
    host = authority.host.strip("[]")
    if host.rpartition(".")[2].isdigit():  # a name cannot end so: it is meant as an address
        try:
            ipaddress.IPv4Address(host)
        except ValueError as exc:
            raise InvalidURL(f"not an IPv4 address: {host!a}") from exc
    return host


def _target(path: str, query: str | None) -> str:
    target = path or "/"
    if query is not None:
        target += "?" + query
    return quote(target, safe=_SAFE)
