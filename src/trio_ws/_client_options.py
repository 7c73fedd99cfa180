"""What a client can be told: one frozen value, spelled once.

Lives here: the options, the reason for each default, their validation. Must never live here: what
an option does. `ClientKeywords` repeats names and types for type checkers, which cannot derive them
from a class; a test holds the two together.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypedDict

from ._client_handshake import check_subprotocols
from ._close import check_outgoing_close
from ._deflate import Deflate
from ._headers import HeaderPairs, check_header_fields
from ._instruments import Instrument, checked_instruments
from ._limits import Limits

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ClientKeywords", "ClientOptions"]


class ClientKeywords(TypedDict, total=False):
    """The keyword arguments of `connect` and its kin; see `ClientOptions`."""

    ssl_context: ssl.SSLContext | None
    headers: HeaderPairs
    subprotocols: Sequence[str]
    proxy: str | None
    redirects: int
    limits: Limits
    compression: Deflate | None
    instruments: Sequence[Instrument]
    cancel_code: int
    cancel_reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientOptions:
    """The options of `connect`, `connect_stream` and `reconnect`.

    Raises:
        TypeError: no option has that name, or a value is of the wrong kind.
        ValueError: a header, a subprotocol, `cancel_code` or `cancel_reason` cannot be sent.
    """

    ssl_context: ssl.SSLContext | None = None
    """For ``wss``: what certificates to trust. None: the system's, with host names checked. With a
    ``ws`` URL it is an error, unless redirects may lead to ``wss``: who gives it expects TLS."""

    headers: HeaderPairs = ()
    """Further headers of the request: ``Authorization``, ``Origin``, ``Cookie``, or another
    ``Host``."""

    subprotocols: Sequence[str] = ()
    """Subprotocols to offer (RFC 6455 section 1.9), the preferred one first."""

    proxy: str | None = "env"
    """"env": as the environment says (``https_proxy``, ``no_proxy`` and so on); a URL (http,
    socks4, socks4a, socks5, socks5h); or None. A proxy needs the extra ``trio_ws[proxy]``; where
    it is missing, that is an error and never a direct connection."""

    redirects: int = 0
    """Redirects to follow. None by default: a WebSocket's URL is rarely typed by a person, and a
    redirect hands the conversation to somebody else. Never from wss to ws. When the origin changes,
    ``Authorization``, ``Cookie``, ``Proxy-Authorization`` and a ``Host`` of yours stay behind;
    other headers go along, so give no secrets in headers with names of their own."""

    limits: Limits = field(default_factory=Limits)
    """What the server may cost. `Limits.handshake_timeout` bounds name resolution, TCP, proxy, TLS,
    redirects and handshake together."""

    compression: Deflate | None = None
    """What compression to offer (RFC 7692). None by default: it multiplies memory."""

    instruments: Sequence[Instrument] = ()
    """Objects that are told of the connection and of its messages; see `Instrument`."""

    cancel_code: int = 1001
    """The close code the server gets when the block is cancelled."""

    cancel_reason: str = ""
    """The reason that goes with `cancel_code`; at most 123 bytes of UTF-8."""

    def __post_init__(self) -> None:
        if isinstance(self.headers, Mapping):
            raise TypeError("headers is a sequence of pairs; for a mapping give its .items()")
        headers = check_header_fields(self.headers)
        if sum(name.lower() == b"host" for name, _ in headers) > 1:
            raise ValueError("two Host headers (RFC 9112 section 3.2)")
        object.__setattr__(self, "headers", headers)
        object.__setattr__(self, "subprotocols", check_subprotocols(self.subprotocols))
        for name, kind in (("limits", Limits), ("compression", Deflate), ("proxy", str)):
            value = getattr(self, name)
            if not isinstance(value, kind) and (value is not None or kind is Limits):
                # Not the value: it may be a proxy's URL with a password, as bytes, say.
                raise TypeError(f"{name} must be a {kind.__name__}, not {type(value).__name__}")
        object.__setattr__(self, "instruments", checked_instruments(self.instruments))
        if self.ssl_context is not None and not isinstance(self.ssl_context, ssl.SSLContext):
            raise TypeError(f"ssl_context must be an SSLContext, not {self.ssl_context!r}")
        if not isinstance(self.redirects, int) or isinstance(self.redirects, bool):
            raise TypeError(f"redirects must be an int: how many, not {self.redirects!r}")
        if self.redirects < 0:
            raise ValueError(f"redirects must be 0 or more, not {self.redirects!r}")
        check_outgoing_close(self.cancel_code, self.cancel_reason)
