"""Hosts and origins: parsing, exact comparison, patterns of whole labels (RFC 6454, RFC 9110 7.2).

Lives here: the values `Authority` and `Origin`, and the rule who may connect from which origin.
Must never live here: anything about a particular request or its transport. Comparison is of parsed
values, never of text by prefix or suffix: ``https://good.evil.io`` and ``https://evilgood`` look
like friends only to a substring.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache

__all__ = ["OriginRule", "allow_origins", "same_origin", "unsafe_any_origin"]

DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}

REMEMBERED = 256
"""Hosts and origins parsed last that are kept: most clients of a server name the same few. Parsing
is a function of the bytes alone, so what is kept cannot be wrong; only short values are."""

MAX_AUTHORITY = 261
"""Bytes of the longest authority: a name of 255, a colon, five digits."""

_JOINERS = {0x200C: None, 0x200D: None}

_authority = re.compile(
    r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]{2,45})\]|(?P<name>[0-9A-Za-z._-]{1,255}))"
    r"(?P<colon>:(?P<port>[1-9][0-9]{0,4})?)?"
)
_origin = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#@]+)")


@dataclass(frozen=True, slots=True)
class Authority:
    """``host[:port]``: lower case, IPv6 in brackets and canonical; port None if absent."""

    host: str
    port: int | None = None

    def with_default(self, scheme: str) -> Authority:
        """The same with the port that `scheme` implies, where none is named."""
        if self.port is not None:
            return self
        return Authority(self.host, DEFAULT_PORTS.get(scheme))

    def __str__(self) -> str:
        return self.host if self.port is None else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Origin:
    """(scheme, host, port), the port never None where the scheme has a default (RFC 6454)."""

    scheme: str
    authority: Authority

    def __str__(self) -> str:
        port = self.authority.port
        shown = None if port == DEFAULT_PORTS.get(self.scheme) else port
        return f"{self.scheme}://{Authority(self.authority.host, shown)}"


def authority_untrusted(value: bytes) -> Authority | None:
    """Parse ``host[:port]``, the form of `Host` (RFC 9110 section 7.2); None if it is malformed.

    Names are ASCII, their labels 1 to 63 letters, digits, ``-`` or ``_``, one final dot allowed
    (and kept: ``a.example.`` is another name than ``a.example``); a label that starts with
    ``xn--`` must be valid punycode. An empty port (``host:``) is no port. No user information.
    """
    return _authority_of(value) if len(value) <= MAX_AUTHORITY else None


@lru_cache(REMEMBERED)
def _authority_of(value: bytes) -> Authority | None:
    if not value.isascii():
        return None
    match = _authority.fullmatch(value.decode("ascii"))
    if match is None:
        return None
    port = int(match["port"]) if match["port"] else None
    if port is not None and port > 65535:
        return None
    if match["ipv6"] is not None:
        try:
            address = ipaddress.IPv6Address(match["ipv6"])
        except ValueError:
            return None
        return Authority(f"[{address.compressed}]", port)
    name = match["name"].lower()
    if not all(_is_label(label) for label in name.removesuffix(".").split(".")):
        return None
    return Authority(name, port)


def _is_label(label: str) -> bool:
    if not 1 <= len(label) <= 63:
        return False
    if not label.startswith("xn--"):
        return True
    try:
        name = label[4:].encode("ascii").decode("punycode")
    except (UnicodeError, ValueError, OverflowError):
        return False
    # Letters beyond ASCII and no control characters; the two joiners are spelling in some scripts.
    return not name.isascii() and name.translate(_JOINERS).isprintable()


def origin_untrusted(value: bytes) -> Origin | None:
    """Parse the one origin of an `Origin` header (RFC 6454 section 7); None if it is malformed.

    ``null``, lists, user information, paths, a final slash, an empty port and anything outside
    ASCII are malformed here: browsers serialise origins in one way, with A-labels.
    """
    if not value.isascii():
        return None
    match = _origin.fullmatch(value.decode("ascii"))
    if match is None or match["authority"].endswith(":"):
        return None
    authority = authority_untrusted(match["authority"].encode("ascii"))
    if authority is None:
        return None
    scheme = match["scheme"].lower()
    return Origin(scheme, authority.with_default(scheme))


@dataclass(frozen=True, slots=True)
class HostPattern:
    """A host, or ``*.`` and a host: one or more whole labels in front of it, never the host alone.

    `port` None matches any port.
    """

    host: str
    subdomains: bool
    port: int | None

    @classmethod
    def parse(cls, pattern: str, what: str) -> HostPattern:
        """Read a pattern from the application; ValueError says what is wrong with it."""
        if not isinstance(pattern, str):
            raise TypeError(f"{what} must be a str, not {type(pattern).__name__}")
        if not pattern.isascii():
            raise ValueError(f"{what} {pattern!r}: write the A-label form (xn--...) of the name")
        subdomains = pattern.startswith("*.")
        authority = authority_untrusted(pattern.removeprefix("*.").encode("ascii"))
        if authority is None or pattern.endswith(":"):
            raise ValueError(f"{what} {pattern!r} is no host[:port]; '*.' may only stand in front")
        one_label = "." not in authority.host.removesuffix(".")
        if subdomains and (authority.host.startswith("[") or _looks_like_ipv4(authority.host)):
            raise ValueError(f"{what} {pattern!r}: an address has no subdomains")
        if subdomains and one_label and authority.host != "localhost":
            raise ValueError(f"{what} {pattern!r} would match a whole top-level domain")
        return cls(authority.host, subdomains, authority.port)

    def matches(self, authority: Authority) -> bool:
        if self.port is not None and self.port != authority.port:
            return False
        if self.subdomains:
            # Both are sequences of valid, non-empty labels: the dot makes the boundary exact.
            return authority.host.endswith("." + self.host)
        return authority.host == self.host

    def __str__(self) -> str:
        return ("*." if self.subdomains else "") + str(Authority(self.host, self.port))


def _looks_like_ipv4(host: str) -> bool:
    return host.rpartition(".")[2].isdigit()


@dataclass(frozen=True, slots=True)
class OriginPattern:
    """A scheme and a `HostPattern` whose port is the scheme's own unless one is named."""

    scheme: str
    host: HostPattern

    @classmethod
    def parse(cls, pattern: str) -> OriginPattern:
        what = "origin pattern"
        if not isinstance(pattern, str):
            raise TypeError(f"{what} must be a str, not {type(pattern).__name__}")
        if pattern == "*":
            raise ValueError("to admit every origin say so: origins=unsafe_any_origin")
        scheme, separator, rest = pattern.partition("://")
        scheme = scheme.lower()
        if not separator or re.fullmatch(r"[a-z][a-z0-9+.-]*", scheme) is None:
            raise ValueError(f"{what} {pattern!r} is not 'scheme://host[:port]' or 'null'")
        host = HostPattern.parse(rest, what)
        port = host.port if host.port is not None else DEFAULT_PORTS.get(scheme)
        return cls(scheme, HostPattern(host.host, host.subdomains, port))

    def matches(self, origin: Origin) -> bool:
        return origin.scheme == self.scheme and self.host.matches(origin.authority)

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}"


@dataclass(frozen=True, slots=True, repr=False)
class OriginRule:
    """Which origins may open a WebSocket; made by `allow_origins`, or one of the two constants."""

    name: str
    patterns: tuple[OriginPattern, ...] = ()
    null: bool = False
    any: bool = False

    def permits(self, value: bytes, own: Origin | None) -> bool:
        """Whether the `Origin` header `value` may connect to a server that is itself `own`."""
        if self.any:
            return True
        if value == b"null":
            return self.null
        origin = origin_untrusted(value)
        if origin is None:
            return False
        return origin == own or any(pattern.matches(origin) for pattern in self.patterns)

    def __repr__(self) -> str:
        return self.name


same_origin = OriginRule("same_origin")
"""Browsers may connect from pages of this very scheme, host and port only. Clients that send no
`Origin` are not browsers, so no page can abuse them: they are admitted (RFC 6455 section 10.2)."""

unsafe_any_origin = OriginRule("unsafe_any_origin", any=True)
"""Any page on any site may connect, with the cookies of its visitor (cross-site WebSocket
hijacking). Only for services that give everybody the same."""


def allow_origins(*patterns: str) -> OriginRule:
    """`same_origin`, or one of `patterns`.

    Args:
        patterns: ``scheme://host[:port]``, compared exactly after adding the scheme's default
            port; ``scheme://*.host[:port]`` for one or more whole labels in front of ``host``
            (``https://*.example.com`` admits ``https://a.b.example.com``, not
            ``https://example.com`` and not ``https://badexample.com``); or ``null``, the origin
            of sandboxed frames and local files, which anybody's page can take on.

    Raises:
        ValueError: a pattern is malformed, holds anything but an A-label (``xn--...``) for an
            international name, or would match a whole top-level domain.
    """
    parsed = tuple(OriginPattern.parse(pattern) for pattern in patterns if pattern != "null")
    shown = ", ".join(repr(pattern) for pattern in patterns)
    return OriginRule(f"allow_origins({shown})", patterns=parsed, null="null" in patterns)
