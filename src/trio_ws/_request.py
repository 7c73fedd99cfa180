"""The request of an opening handshake, as a value (RFC 6455 section 4.1).

Lives here: `UpgradeRequest` and how its parts are read. Must never live here: a decision, I/O, or
an exception: every property of a request with hostile bytes in it returns something harmless.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, TypeAlias
from urllib.parse import unquote, unquote_to_bytes

from ._headers import printable_untrusted, tokens_untrusted
from ._origin import Authority, authority_untrusted

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Address", "Forwarded", "UpgradeRequest"]

Address: TypeAlias = tuple[str, int] | str | None
"""One end of a transport: ``(ip, port)``; the path of a Unix socket (usually ``""``, as clients do
not bind theirs); None for a stream that has no address, such as one in memory."""

Scheme: TypeAlias = Literal["http", "https"]

_ABSOLUTE = ("http", "https", "ws", "wss")

_NO_PARAMS: Mapping[str, str] = MappingProxyType({})

# Requests live as long as their connections: their usual names are shared, not kept once for each.
_SHARED = {
    name: name
    for name in (
        b"accept accept-encoding accept-language authorization cache-control connection cookie host"
        b" origin pragma sec-fetch-dest sec-fetch-mode sec-fetch-site sec-websocket-extensions"
        b" sec-websocket-key sec-websocket-protocol sec-websocket-version upgrade user-agent"
        b" x-forwarded-for x-forwarded-host x-forwarded-proto"
    ).split()
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Forwarded:
    """What a trusted proxy says that its client used; None where it says nothing."""

    scheme: Scheme | None = None
    host: str | None = None
    client_address: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class UpgradeRequest:
    """A client's HTTP request, as far as it was read: head only, before any answer.

    Header names are lower case; values are bytes as sent. Nothing a client sends makes a property
    raise: what cannot be understood reads as absent or keeps its malformed form, escaped.

    Attributes:
        method: as sent, such as ``b"GET"``.
        raw_target: the request target as sent (RFC 9112 section 3.2).
        http_version: such as ``b"1.1"``.
        headers: pairs of lower-case name and value, in order, repeated ones included.
        peer_address, local_address: the two ends of the transport, see `Address`.
        tls: whether the transport itself is TLS.
        params: what the `Routes` captured, by name; empty without routes.
        forwarded: what a trusted proxy said, if `Policy.trusted_proxies` names the peer.
    """

    method: bytes
    raw_target: bytes
    http_version: bytes = b"1.1"
    headers: tuple[tuple[bytes, bytes], ...]
    peer_address: Address = None
    local_address: Address = None
    tls: bool = False
    params: Mapping[str, str] = field(default_factory=lambda: _NO_PARAMS, hash=False)
    forwarded: Forwarded = Forwarded()

    def __post_init__(self) -> None:
        pairs = [(bytes(name).lower(), bytes(value)) for name, value in self.headers]
        shared = tuple([(_SHARED.get(name, name), value) for name, value in pairs])
        object.__setattr__(self, "headers", shared)
        if self.params is not _NO_PARAMS:
            object.__setattr__(self, "params", MappingProxyType(dict(self.params)))

    # -- headers

    def header_all(self, name: str | bytes) -> tuple[bytes, ...]:
        """The values of every header `name` (any case), in order."""
        wanted = (name.encode("latin-1", "replace") if isinstance(name, str) else name).lower()
        return tuple([value for key, value in self.headers if key == wanted])

    def header(self, name: str | bytes) -> bytes | None:
        """The value of the header `name` (any case), or None if it is absent or repeated."""
        values = self.header_all(name)
        return values[0] if len(values) == 1 else None

    @property
    def origin(self) -> str | None:
        """The `Origin` header as text; None only if there is none.

        A malformed one keeps its text, bytes outside ASCII escaped, and repeated ones are joined by
        commas, so that ``origin is None`` never mistakes a strange browser for no browser.
        """
        values = self.header_all(b"origin")
        return _text(b", ".join(values)) if values else None

    @property
    def cookies(self) -> Mapping[str, str]:
        """Cookies by name (RFC 6265 section 5.4). Of equal names the first, which is the one with
        the most specific path, wins; values are as sent (quotes are kept), UTF-8 with replacement
        characters."""
        found: dict[str, str] = {}
        for value in self.header_all(b"cookie"):
            for pair in value.decode("utf-8", "replace").split(";"):
                name, separator, content = pair.partition("=")
                if separator and name.strip():
                    found.setdefault(name.strip(), content.strip())
        return found

    @property
    def subprotocols(self) -> tuple[str, ...]:
        """The subprotocols offered, in the client's order of preference; empty if malformed."""
        return tokens_untrusted(self.header_all(b"sec-websocket-protocol")) or ()

    # -- where the client believes to be

    @property
    def scheme(self) -> Scheme:
        """ "https" or "http": the transport's, or what a trusted proxy said."""
        return self.forwarded.scheme or ("https" if self.tls else "http")

    @property
    def authority(self) -> Authority | None:
        """`host`, parsed; None if malformed."""
        if self.forwarded.host is not None:
            return authority_untrusted(self.forwarded.host.encode("ascii", "replace"))
        value = self.header(b"host")
        return None if value is None else authority_untrusted(value)

    @property
    def host(self) -> str:
        """``host[:port]`` in lower case, from `Host` or from a trusted proxy; "" if malformed."""
        authority = self.authority
        return "" if authority is None else str(authority)

    @property
    def client_address(self) -> str | None:
        """The client's IP address: the transport's, or what a trusted proxy said; None if
        unknown."""
        if self.forwarded.client_address is not None:
            return self.forwarded.client_address
        return self.peer_address[0] if isinstance(self.peer_address, tuple) else None

    # -- target

    @property
    def target(self) -> str:
        """The request target as sent, bytes outside ASCII escaped."""
        return _text(self.raw_target)

    @property
    def raw_path(self) -> str:
        """The path of the target, still percent-encoded; "" unless the target is in origin-form or
        absolute-form (RFC 9112 section 3.2)."""
        before_query = self.target.partition("?")[0]
        if before_query.startswith("/"):
            return before_query
        scheme, separator, rest = before_query.partition("://")
        if not separator or scheme.lower() not in _ABSOLUTE:
            return ""
        return "/" + rest.partition("/")[2]

    @property
    def path(self) -> str:
        """The path, percent-decoded segment by segment (UTF-8 with replacement characters).

        A slash inside a segment (``%2F``) stays ``%2F``, so that "/" always separates segments,
        and what looked like one segment to a proxy in front never becomes two here. `Routes`
        captures get it as "/".
        """
        segments = self.raw_path.split("/")
        return "/".join(unquote(segment).replace("/", "%2F") for segment in segments)

    @property
    def query(self) -> str:
        """What follows the first "?" of the target, still encoded (parse it with
        `urllib.parse.parse_qs`); "" if there is nothing."""
        return self.target.partition("?")[2]

    def __repr__(self) -> str:
        """For logs: never the query string nor any credential (`Authorization`, `Cookie`,
        `Sec-WebSocket-Protocol` often carry some)."""
        method, path = printable_untrusted(self.method, 20), printable_untrusted(self.raw_path, 100)
        origin = "" if self.origin is None else f" origin={printable_untrusted(self.origin, 100)}"
        host = printable_untrusted(self.host, 100)
        return (
            f"<UpgradeRequest {method} {path} host={host}{origin}"
            f" client={self.client_address} headers={len(self.headers)}>"
        )


Fields: TypeAlias = "Mapping[bytes, list[bytes]]"


def fields_of(request: UpgradeRequest) -> Fields:
    """The values of each header by its lower-case name, in order: for who asks for many."""
    fields: dict[bytes, list[bytes]] = {}
    for name, value in request.headers:
        if name in fields:
            fields[name].append(value)
        else:
            fields[name] = [value]
    return fields


def segments_untrusted(raw_path: str) -> tuple[str, ...] | None:
    """The segments of a percent-encoded path that starts with "/", decoded after splitting.

    None if the path does not start with "/" or a segment is not UTF-8.
    """
    if not raw_path.startswith("/"):
        return None
    try:
        # A lone surrogate can only come from the application's own str: malformed as well.
        return tuple(unquote_to_bytes(part).decode() for part in raw_path[1:].split("/"))
    except UnicodeError:
        return None


def _text(value: bytes) -> str:
    return value.decode("ascii", "backslashreplace")
