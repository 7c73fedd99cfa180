"""What the logs say about requests and connections.

Lives here: wording, levels, and the rule that everything from a peer is escaped and capped and that
query strings, `Authorization`, `Cookie` and `Sec-WebSocket-Protocol` never appear. Must never live
here: a decision about a connection.

``trio_ws.handshake`` has one line for each refusal, ``trio_ws.access`` one for each page answered
and one for each connection when it is over.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ._headers import printable_untrusted
from ._response import Refusal, Response

if TYPE_CHECKING:
    from ._close import Close
    from ._request import Address, UpgradeRequest

__all__ = ["Hints", "client_name", "peer_name", "report_answer", "report_end", "request_line"]

log = logging.getLogger("trio_ws.handshake")
access = logging.getLogger("trio_ws.access")

QUIET_ROWS = frozenset({"head", "size", "protocol", "host", "target", "body", "plain", "method"})
"""Refusals that port scanners and lost browsers earn all day: DEBUG, where others are INFO."""

MAX_HINTS = 100
"""Origins come from peers; remembering which were hinted at must not grow without bound."""


class Hints:
    """Which origins the log has already explained something about."""

    def __init__(self) -> None:
        self._given: set[str | None] = set()

    def first(self, origin: str | None) -> bool:
        """Whether a hint about `origin` is due; at most once for each."""
        if origin in self._given or len(self._given) >= MAX_HINTS:
            return False
        self._given.add(origin)
        return True


def report_answer(
    answer: Response, request: UpgradeRequest | None, peer: str, hints: Hints
) -> None:
    """Log any answer but 101; `request` is None where there was no readable one."""
    what = "a request" if request is None else request_line(request)
    client = peer if request is None else client_name(request)
    if not isinstance(answer, Refusal):
        access.info("%s %s -> %d", client, what, answer.status)
        return
    log.log(
        _level(answer),
        "%s %s -> %d, refused by row %r",
        client,
        what,
        answer.status,
        answer.row,
        exc_info=answer.error,
    )
    if answer.hint is not None and request is not None and hints.first(request.origin):
        origin = printable_untrusted(request.origin or "none")
        log.warning("origin %s: %s", origin, printable_untrusted(answer.hint, 1000))


def _level(refusal: Refusal) -> int:
    if refusal.error is not None:
        return logging.ERROR
    quiet = refusal.row in QUIET_ROWS or refusal.status == 408
    return logging.DEBUG if quiet else logging.INFO


def report_end(request: UpgradeRequest, closed: Close | None, seconds: float) -> None:
    """Log that an opened connection is over."""
    if not access.isEnabledFor(logging.INFO):
        return
    code = "open" if closed is None else closed.code
    client, line = client_name(request), request_line(request)
    access.info("%s %s -> 101, closed %s after %.3f s", client, line, code, seconds)


def request_line(request: UpgradeRequest) -> str:
    """Method and path for a log, never the query string."""
    method = printable_untrusted(request.method, 20)
    return f"{method} {printable_untrusted(request.raw_path or '(no path)')}"


def client_name(request: UpgradeRequest) -> str:
    """Where a request comes from, for a log: the client if a trusted proxy names it."""
    if request.forwarded.client_address is not None:
        return printable_untrusted(request.forwarded.client_address, 60)
    return peer_name(request.peer_address)


def peer_name(address: Address) -> str:
    """The other end of a transport, for a log."""
    if isinstance(address, tuple):
        host, port = address
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return "a peer without address" if address is None else f"unix:{printable_untrusted(address)}"
