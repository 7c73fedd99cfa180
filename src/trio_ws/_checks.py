"""The table of the opening handshake: every reason to refuse a request, in order, as data.

Lives here: the rows (`TABLE`), their one interpreter (`walk`), and the refusals of rows that the
server asks itself. `Policy.decide`, `Policy.explain` and docs/handshake.md all come from this
table. Must never live here: I/O; parsing of a request head (rows `head` and `size` are
`_handshake`'s); waiting (rows `deadline` and `authorize` are the server's): such rows stand here
for their place and their words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from . import _rules as rules
from ._request import UpgradeRequest
from ._response import Refusal, refuse
from ._rules import Check

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Check"]

Asked: TypeAlias = Literal["while reading", "of the request", "of the server"]


@dataclass(frozen=True, slots=True)
class Row:
    """One reason to refuse: its name, what must hold, the status if it does not, and its check.

    Rows without a check are asked elsewhere, see `asked`.
    """

    name: str
    holds: str
    refusal: str
    asked: Asked = "of the request"
    check: Callable[[UpgradeRequest, rules.Gate], rules.Answer] | None = None


TABLE: Final[tuple[Row, ...]] = (
    Row(
        "head",
        "The request head can be parsed; it holds no bare CR or LF, no NUL, no folded line.",
        "400",
        "while reading",
    ),
    Row(
        "size",
        "The head keeps within `max_header_bytes` and `max_headers` (431), the target within"
        " `max_target` (414).",
        "431 / 414",
        "while reading",
    ),
    Row(
        "deadline",
        "TLS, head and decision are done within `handshake_timeout`: 408 while the head is"
        " incomplete, 503 from then on.",
        "408 / 503",
        "of the server",
    ),
    Row("protocol", "The protocol is HTTP/1.1.", "505", check=rules.check_protocol),
    Row(
        "host",
        "There is exactly one `Host`, a well-formed `host[:port]`.",
        "400",
        check=rules.check_host,
    ),
    Row(
        "hosts",
        "The host is one of `Policy.hosts`, if given. Guards plain pages too: DNS rebinding.",
        "421",
        check=rules.check_hosts,
    ),
    Row(
        "target",
        "The target is in origin-form, or in absolute-form with the authority that `Host` names.",
        "400",
        check=rules.check_target,
    ),
    Row(
        "body",
        "There is no `Content-Length` other than 0, no `Transfer-Encoding`, no `Expect`.",
        "400",
        check=rules.check_body,
    ),
    Row(
        "plain",
        "`Upgrade` contains `websocket`. Otherwise, with `http`, GET and HEAD are pages and other"
        " methods 405; without it GET is 426 and other methods 405.",
        "426 / 405",
        check=rules.check_plain,
    ),
    Row("method", "The method is GET.", "405", check=rules.check_method),
    Row(
        "lists",
        "`Connection`, `Upgrade` and `Sec-WebSocket-Protocol` are lists of tokens, over all their"
        " headers; empty elements are ignored.",
        "400",
        check=rules.check_lists,
    ),
    Row(
        "connection",
        "`Connection` contains `upgrade`, in any case.",
        "426",
        check=rules.check_connection,
    ),
    Row(
        "version",
        "There is exactly one `Sec-WebSocket-Version`, 13.",
        "426",
        check=rules.check_version,
    ),
    Row(
        "key",
        "There is exactly one `Sec-WebSocket-Key`, 16 bytes in canonical base64.",
        "400",
        check=rules.check_key,
    ),
    Row("origin header", "There is at most one `Origin`.", "400", check=rules.check_origin_header),
    Row(
        "route",
        "The path has a route, if the handler is a `Routes`.",
        "404",
        check=rules.check_route,
    ),
    Row(
        "origins",
        "`Policy.origins` admits the `Origin`; without one it is no browser and passes.",
        "403",
        check=rules.check_origins,
    ),
    Row(
        "checks",
        "Each of `Policy.checks` returns None. The refusal is the check's own; one that raises is"
        " a 500.",
        "its own",
        check=rules.check_checks,
    ),
    Row(
        "capacity",
        "The server is not draining and `max_connections` is not reached (503), nor"
        " `max_connections_per_address` (429); all with `Retry-After`.",
        "503 / 429",
        "of the server",
        rules.check_capacity,
    ),
    Row(
        "subprotocol",
        "The first of `Policy.subprotocols` that the client offers is chosen; extensions are"
        " negotiated. Never refuses: without a common one the 101 carries none.",
        "none",
    ),
    Row(
        "authorize",
        "`await authorize(request)` returns None or an `Accept`. The refusal is its own; if it"
        " raises 500, if it is too slow 503.",
        "its own",
        "of the server",
    ),
)


Step: TypeAlias = tuple[Row, UpgradeRequest, rules.Ending]
"""A row, the request as known after it, and the answer, which is None while rows pass."""


def walk(
    request: UpgradeRequest, gate: rules.Gate, told: Callable[[Step], object] | None = None
) -> tuple[UpgradeRequest, rules.Ending]:
    """The interpreter: ask row after row, up to and including the first that does not pass.

    Returns the request as known then, and the last answer. A check that raises is our side's fault:
    its row answers 500, the exception in `Refusal.error`.

    Args:
        told: called with every row that was reached.
    """
    for row in TABLE:
        answer: rules.Answer = None
        if row.check is not None:
            try:
                answer = row.check(request, gate)
            except Exception as exc:  # noqa: BLE001 the application's: logged by the server
                answer = internal_error(row.name, exc)
        if answer is not None and isinstance(answer, UpgradeRequest):
            request, answer = answer, None
        if told is not None:
            told((row, request, answer))
        if answer is not None:
            return request, answer
    return request, None


# -- refusals of rows that the server asks itself


def internal_error(row: str, error: Exception) -> Refusal:
    """Code of the application or of ours raised: 500, the peer learns no more than that."""
    return refuse(row, 500, "The server failed to decide; its log says why.", error=error)


def authorize_failed(error: Exception) -> Refusal:
    """`authorize` raised, or agreed to something impossible."""
    return internal_error("authorize", error)


def too_slow(*, head_complete: bool) -> Refusal:
    """The handshake's deadline passed, by the peer's fault (408) or by ours (503)."""
    if head_complete:
        text = "The server took too long to decide; try again later."
        return refuse("deadline", 503, text, _retry_after(5))
    return refuse("deadline", 408, "The request head did not arrive in time.")


def draining() -> Refusal:
    """The server is shutting down."""
    return refuse("capacity", 503, "The server is shutting down; try again.", _retry_after(1))


def too_many_connections() -> Refusal:
    """`Limits.max_connections` is reached."""
    return refuse("capacity", 503, "The server is full; try again later.", _retry_after(5))


def too_many_from_address() -> Refusal:
    """`Limits.max_connections_per_address` is reached."""
    text = "Too many connections from your address; close some, or try again later."
    return refuse("capacity", 429, text, _retry_after(5))


def _retry_after(seconds: int) -> list[tuple[bytes | str, bytes | str]]:
    return [("Retry-After", str(seconds))]
