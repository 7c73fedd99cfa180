"""The checks behind the table of the opening handshake: pure functions of a request.

Lives here: one function per row, and the `Gate` they go by. Must never live here: their order and
their documentation (`_checks`), I/O, or state.

A check takes the request and the `Gate` and answers: None, it passes; a request, it passes and is
known better from now on; a `Refusal`; or `PLAIN`, this is no handshake but a page.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from ._headers import tokens_untrusted
from ._origin import (
    Authority,
    HostPattern,
    Origin,
    OriginRule,
    authority_untrusted,
    origin_untrusted,
)
from ._request import UpgradeRequest
from ._response import Refusal, Response, refuse

if TYPE_CHECKING:
    from ._request import Fields
    from ._routes import Routes

__all__ = ["Check"]

Check: TypeAlias = Callable[[UpgradeRequest], Response | None]
"""A refusal of the application's own: pure, synchronous; None to pass. For anything that waits
there is `authorize`."""


class PlainRequest(Enum):
    """The verdict on a request for an ordinary page, which `http` answers."""

    PLAIN = "plain"


PLAIN: Final = PlainRequest.PLAIN

Ending: TypeAlias = Refusal | PlainRequest | None
Answer: TypeAlias = UpgradeRequest | Ending

Capacity: TypeAlias = Callable[[UpgradeRequest], Response | None]
"""The server's own check: whether it has room for the client behind this request."""


class Gate(NamedTuple):
    """What the checks go by: the request's header fields by name, which no row changes, the
    policy's settings, and what the server adds to them. One for each request: a dataclass that
    is frozen would take longer to make than most checks."""

    fields: Fields

    origins: OriginRule
    hosts: tuple[HostPattern, ...] | None
    checks: tuple[Check, ...]
    routes: Routes[Any] | None
    plain: bool
    capacity: Capacity | None


def _all(gate: Gate, name: bytes) -> Sequence[bytes]:
    return gate.fields.get(name, ())


def _only(gate: Gate, name: bytes) -> bytes | None:
    values = gate.fields.get(name, ())
    return values[0] if len(values) == 1 else None


def check_protocol(request: UpgradeRequest, _: Gate) -> Answer:
    if request.http_version == b"1.1":
        return None
    return refuse("protocol", 505, "Use HTTP/1.1.")


def check_host(_: UpgradeRequest, gate: Gate) -> Answer:
    value = _only(gate, b"host")
    if value is not None and authority_untrusted(value) is not None:
        return None
    return refuse("host", 400, "Send exactly one Host header of the form host[:port].")


def check_hosts(request: UpgradeRequest, gate: Gate) -> Answer:
    if gate.hosts is None:
        return None
    authority = request.authority
    if authority is not None:
        authority = authority.with_default(request.scheme)
        if any(pattern.matches(authority) for pattern in gate.hosts):
            return None
    return refuse("hosts", 421, "This server does not answer for the host you asked for.")


_absolute_form = re.compile(r"(?i:(?P<scheme>https?|wss?)://(?P<authority>[^/?]*))(?:[/?].*)?")


def check_target(request: UpgradeRequest, _: Gate) -> Answer:
    if b"#" not in request.raw_target:
        if request.raw_target.startswith(b"/"):
            return None
        match = _absolute_form.fullmatch(request.target)
        if match is not None and _same_authority(request, match["scheme"].lower(), match[2]):
            return None
        if request.method == b"CONNECT" and authority_untrusted(request.raw_target) is not None:
            return None  # its proper form (RFC 9112 section 3.2.3); the method row refuses it
    return refuse("target", 400, "Ask for a path, or for an absolute URL that agrees with Host.")


def _same_authority(request: UpgradeRequest, scheme: str, text: str) -> bool:
    asked = authority_untrusted(text.encode("ascii", "replace"))
    host = authority_untrusted(request.header(b"host") or b"")
    if asked is None or host is None:
        return False
    return asked.with_default(scheme) == host.with_default(scheme)


_zero = re.compile(rb"0+")


def check_body(_: UpgradeRequest, gate: Gate) -> Answer:
    lengths = _all(gate, b"content-length")
    if (
        (not lengths or all(_zero.fullmatch(length) for length in lengths))
        and b"transfer-encoding" not in gate.fields
        and b"expect" not in gate.fields
    ):
        return None
    return refuse("body", 400, "Send no body: no Content-Length, Transfer-Encoding or Expect.")


def check_plain(request: UpgradeRequest, gate: Gate) -> Answer:
    for value in _all(gate, b"upgrade"):
        for part in value.split(b","):
            if part.strip(b" \t").lower() == b"websocket":
                return None
    if gate.plain and request.method in (b"GET", b"HEAD"):
        return PLAIN
    if gate.plain:
        allow = [("Allow", "GET, HEAD")]
        return refuse("plain", 405, "Use GET or HEAD, or ask for a WebSocket.", allow)
    if request.method == b"GET":
        return refuse("plain", 426, "Only WebSockets here: send Upgrade: websocket.")
    return refuse("plain", 405, "Use GET with Upgrade: websocket.", [("Allow", "GET")])


def check_method(request: UpgradeRequest, _: Gate) -> Answer:
    if request.method == b"GET":
        return None
    return refuse("method", 405, "A WebSocket is opened with GET.", [("Allow", "GET")])


_LISTS: Final = (
    ("Connection", b"connection"),
    ("Upgrade", b"upgrade"),
    ("Sec-WebSocket-Protocol", b"sec-websocket-protocol"),
)


def check_lists(_: UpgradeRequest, gate: Gate) -> Answer:
    for name, field in _LISTS:
        values = gate.fields.get(field)
        if values and tokens_untrusted(values, versions=name == "Upgrade") is None:
            return refuse("lists", 400, f"{name} must be a comma-separated list of tokens.")
    return None


def check_connection(_: UpgradeRequest, gate: Gate) -> Answer:
    for option in tokens_untrusted(_all(gate, b"connection")) or ():
        if option.lower() == "upgrade":
            return None
    text = "Send Connection: Upgrade. A proxy that does not know WebSockets may have removed it."
    return refuse("connection", 426, text)


def check_version(_: UpgradeRequest, gate: Gate) -> Answer:
    if _only(gate, b"sec-websocket-version") == b"13":
        return None
    supported = ((b"Sec-WebSocket-Version", b"13"),)
    return refuse("version", 426, "Use WebSocket version 13.", handshake_headers=supported)


# 16 bytes are 21 digits, one digit with four unused bits, which are zero, and two of padding.
_canonical_key = re.compile(rb"[A-Za-z0-9+/]{21}[AQgw]==")


def check_key(_: UpgradeRequest, gate: Gate) -> Answer:
    value = _only(gate, b"sec-websocket-key")
    if value is not None and _canonical_key.fullmatch(value) is not None:
        return None
    return refuse("key", 400, "Send exactly one Sec-WebSocket-Key: 16 bytes in base64.")


def check_origin_header(_: UpgradeRequest, gate: Gate) -> Answer:
    if len(_all(gate, b"origin")) <= 1:
        return None
    return refuse("origin header", 400, "Send at most one Origin header.")


def check_route(request: UpgradeRequest, gate: Gate) -> Answer:
    if gate.routes is None:
        return None
    match = gate.routes.match(request.raw_path)
    if match is None:
        return refuse("route", 404, "There is no WebSocket under this path.")
    return replace(request, params=match.params)


def check_origins(request: UpgradeRequest, gate: Gate) -> Answer:
    value = _only(gate, b"origin")
    if value is None:
        return None
    own = own_origin(request)
    if gate.origins.permits(value, own):
        return None
    text = "Pages of this origin may not connect here; the operator can allow it (allow_origins)."
    return refuse("origins", 403, text, hint=_proxy_hint(origin_untrusted(value), own))


def own_origin(request: UpgradeRequest) -> Origin | None:
    """The origin of a page that came from where this request went; None if `Host` is malformed."""
    authority = request.authority
    if authority is None:
        return None
    return Origin(request.scheme, authority.with_default(request.scheme))


def _proxy_hint(origin: Origin | None, own: Origin | None) -> str | None:
    """Words for the operator, if `origin` is ours but for TLS that ended in front of us."""
    if origin is None or own is None or (origin.scheme, own.scheme) != ("https", "http"):
        return None
    ours, port = own.authority, own.authority.port
    # "Host: a" reads as port 80 here and was port 443 in front; "Host: a:8443" is the same in both.
    if origin.authority not in (ours, Authority(ours.host, 443 if port == 80 else port)):
        return None
    return (
        f"{origin} was refused because the request came as {own}: if a proxy in front of this"
        " server ends TLS, name it in Policy(trusted_proxies=...) and let it send"
        " X-Forwarded-Proto, or list the origin in allow_origins"
    )


def check_checks(request: UpgradeRequest, gate: Gate) -> Answer:
    for check in gate.checks:
        answer: object = check(request)
        if isinstance(answer, Response):
            return answer if isinstance(answer, Refusal) else Refusal(answer, "checks")
        if answer is not None:
            name = getattr(check, "__qualname__", repr(check))
            raise TypeError(f"check {name} returned {answer!r}, neither a Response nor None")
    return None


def check_capacity(request: UpgradeRequest, gate: Gate) -> Answer:
    answer = None if gate.capacity is None else gate.capacity(request)
    if answer is None or isinstance(answer, Refusal):
        return answer
    return Refusal(answer, "capacity")
