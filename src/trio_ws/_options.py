"""What a server can be told: one frozen value, spelled once.

Lives here: the options, the reason for each default, their validation. Must never live here: what
an option does. `ServerKeywords` repeats names and types for type checkers, which cannot derive them
from a class; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, TypedDict

from ._close import check_outgoing_close
from ._deflate import Deflate
from ._instruments import Instrument, checked_instruments
from ._limits import Limits
from ._policy import Policy
from ._request import UpgradeRequest
from ._response import Accept, Response
from ._websocket import WebSocket

__all__ = ["ServerKeywords", "ServerOptions"]

Handler: TypeAlias = Callable[[WebSocket], Awaitable[object]]
Http: TypeAlias = Callable[[UpgradeRequest], Awaitable[Response]]
Authorize: TypeAlias = Callable[[UpgradeRequest], Awaitable[Response | Accept | None]]

KINDS: dict[str, type] = {
    "policy": Policy,
    "limits": Limits,
    "cancel_on_close": bool,
    "raise_handler_errors": bool,
}


class ServerKeywords(TypedDict, total=False):
    """The keyword arguments of `serve` and its kin; see `ServerOptions`."""

    policy: Policy
    limits: Limits
    compression: Deflate | None
    http: Http | None
    authorize: Authorize | None
    instruments: Sequence[Instrument]
    cancel_code: int
    cancel_reason: str
    cancel_on_close: bool
    raise_handler_errors: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerOptions:
    """The options of `serve`, `serve_listeners`, `serve_stream` and `serve_upgrade`.

    Raises:
        TypeError: no option has that name, or a value is of the wrong kind.
        ValueError: `cancel_code` or `cancel_reason` cannot be sent (RFC 6455 section 7.4).
    """

    policy: Policy = field(default_factory=Policy)
    """Who may connect. Same-origin for browsers, because a WebSocket is not protected by CORS and
    carries the user's cookies (RFC 6455 section 10.2)."""

    limits: Limits = field(default_factory=Limits)
    """What a peer may cost."""

    compression: Deflate | None = None
    """Whether messages are compressed with clients that offer it (RFC 7692), and how. Off: it
    multiplies the memory of a connection; see `Deflate` for how much."""

    http: Http | None = None
    """Answers plain GET and HEAD requests on the same port: ``await http(request) -> Response``,
    within `Limits.handshake_timeout`. A health endpoint, a page. It is asked before routes and
    origins are looked at. If it raises: 500. Without it plain requests are told 426."""

    authorize: Authorize | None = None
    """Has the last word on a request the policy accepts, and may wait: ``await authorize(request)``
    returns a `Response` (refused), an `Accept` (its `context` becomes ``ws.context``), or None
    (accepted). Within `Limits.handshake_timeout`, else 503. If it raises: 500."""

    instruments: Sequence[Instrument] = ()
    """Objects that are told of handshakes, connections and messages; see `Instrument`."""

    cancel_code: int = 1001
    """The close code peers get when the server is cancelled. 1001, "going away", is the RFC's word
    for a server that goes down (section 7.4.1); 1012 invites clients to come back."""

    cancel_reason: str = ""
    """The reason that goes with `cancel_code`; at most 123 bytes of UTF-8."""

    cancel_on_close: bool = False
    """Whether a handler is cancelled when its connection has ended, by whatever but its own
    ``ws.close()``: the peer closed or was lost, a limit was reached, the server drains. The scope
    around the handler catches that, so it counts as a normal end. Good for handlers that do long
    work for one peer. Off, because it strikes at any await: messages that had arrived stay
    unreceived, and work that should outlive the connection is cut short."""

    raise_handler_errors: bool = False
    """Whether an exception out of a handler ends the whole server and is raised from it, instead
    of being logged. For tests and strict users: in production one request must not stop the rest.
    """

    def __post_init__(self) -> None:
        for name, kind in KINDS.items():
            value = getattr(self, name)
            if not isinstance(value, kind):
                raise TypeError(f"{name} must be a {kind.__name__}, not {value!r}")
        if self.compression is not None and not isinstance(self.compression, Deflate):
            raise TypeError(f"compression must be a Deflate or None, not {self.compression!r}")
        for name in ("http", "authorize"):
            value = getattr(self, name)
            if value is not None and not callable(value):
                raise TypeError(f"{name} must be an async function or None, not {value!r}")
        object.__setattr__(self, "instruments", checked_instruments(self.instruments))
        check_outgoing_close(self.cancel_code, self.cancel_reason)
