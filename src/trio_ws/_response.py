"""Answers to an opening handshake, as values (RFC 6455 section 4.2.2).

Lives here: `Response` (an ordinary HTTP response), `Accept` (a 101 to be), `Refusal` (a `Response`
that knows which row of the table it comes from), and their validation. Must never live here: the
bytes on the wire (`_handshake`), or the decision which answer to give (`_checks`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from ._headers import HeaderPairs, check_header_fields, check_token

__all__ = ["Accept", "Refusal", "Response"]


@dataclass(frozen=True, slots=True, init=False)
class Response:
    """An ordinary HTTP response: a page, a redirect, a refusal.

    `Date`, `Content-Length`, `Connection: close`, and unless given here
    ``Content-Type: text/plain; charset=utf-8`` and ``Cache-Control: no-store``, are added when it
    is sent.

    Args:
        status: 200 to 599.
        headers: pairs of names and values, str (Latin-1) or bytes.
        body: bytes, or a str, which is sent as UTF-8.

    Raises:
        ValueError: a status outside 200-599; a header that is malformed, carries CR, LF or NUL, or
            belongs to the handshake itself (`Upgrade`, `Connection`, `Sec-WebSocket-*`,
            `Content-Length`, `Transfer-Encoding`).
        TypeError: the body or the status is of another type.
    """

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    def __init__(self, status: int, headers: HeaderPairs = (), body: bytes | str = b"") -> None:
        if not isinstance(status, int) or isinstance(status, bool):
            raise TypeError(f"status must be an int, not {type(status).__name__}")
        if not 200 <= status <= 599:
            raise ValueError(f"status must be 200 to 599, not {status}")
        if isinstance(body, str):
            body = body.encode()
        if not isinstance(body, (bytes, bytearray, memoryview)):
            raise TypeError(f"body must be bytes or str, not {type(body).__name__}")
        object.__setattr__(self, "status", int(status))
        object.__setattr__(self, "headers", check_header_fields(headers))
        object.__setattr__(self, "body", bytes(body))

    def header(self, name: str | bytes) -> bytes | None:
        """The value of the header `name`, any case; None if it is absent or repeated."""
        wanted = (name.encode("latin-1", "replace") if isinstance(name, str) else name).lower()
        values = [value for key, value in self.headers if key.lower() == wanted]
        return values[0] if len(values) == 1 else None


@dataclass(frozen=True, slots=True, init=False)
class Accept:
    """Agreement to open the WebSocket, with what the 101 shall carry.

    Args:
        subprotocol: one of those the client offered, or None. A value the client did not offer is
            a ValueError when the 101 is built, which the client sees as a 500.
        headers: further headers of the 101, as in `Response`.
        context: handed to the handler as ``ws.context``: the authenticated user, say.

    Raises:
        ValueError: a subprotocol that is no token (RFC 6455 section 4.1), or a header that
            `Response` would refuse.
    """

    subprotocol: str | None
    headers: tuple[tuple[bytes, bytes], ...]
    context: Any

    def __init__(
        self, subprotocol: str | None = None, headers: HeaderPairs = (), context: Any = None
    ) -> None:
        if subprotocol is not None:
            check_token(subprotocol, "subprotocol")
        object.__setattr__(self, "subprotocol", subprotocol)
        object.__setattr__(self, "headers", check_header_fields(headers))
        object.__setattr__(self, "context", context)


@dataclass(frozen=True, slots=True, init=False)
class Refusal(Response):
    """A `Response` that ends the handshake, with the name of the row that gave it.

    Attributes:
        row: the row's name in the table of `_checks`.
        error: the exception to log where our side is at fault (status 500), else None.
        hint: words for the operator's log where the refusal smells of a misconfiguration.
    """

    row: str
    error: Exception | None = field(compare=False)
    hint: str | None = field(compare=False)

    def __init__(
        self,
        response: Response,
        row: str,
        *,
        handshake_headers: tuple[tuple[bytes, bytes], ...] = (),
        error: Exception | None = None,
        hint: str | None = None,
    ) -> None:
        # Not validated again: `Sec-WebSocket-Version` is ours to set here, and only here.
        object.__setattr__(self, "status", response.status)
        object.__setattr__(self, "headers", response.headers + handshake_headers)
        object.__setattr__(self, "body", response.body or _body(response.status, row, ""))
        object.__setattr__(self, "row", row)
        object.__setattr__(self, "error", error)
        object.__setattr__(self, "hint", hint)


def received_response(
    status: int, headers: tuple[tuple[bytes, bytes], ...], body: bytes = b""
) -> Response:
    """What a server sent, as it sent it: any status, any header; nothing is validated."""
    response = object.__new__(Response)
    object.__setattr__(response, "status", status)
    object.__setattr__(response, "headers", headers)
    object.__setattr__(response, "body", body)
    return response


def refined(accept: Accept, later: Accept) -> Accept:
    """`accept` with what a later, better informed one adds: its subprotocol if it names one, its
    headers behind the others, its context."""
    subprotocol = later.subprotocol if later.subprotocol is not None else accept.subprotocol
    return Accept(subprotocol, accept.headers + later.headers, later.context)


def refuse(
    row: str,
    status: int,
    text: str,
    headers: HeaderPairs = (),
    *,
    handshake_headers: tuple[tuple[bytes, bytes], ...] = (),
    error: Exception | None = None,
    hint: str | None = None,
) -> Refusal:
    """A refusal of ours: its body names the row and says in `text` what to do about it."""
    response = Response(status, headers, _body(status, row, text))
    return Refusal(response, row, handshake_headers=handshake_headers, error=error, hint=hint)


def reason_phrase(status: int) -> str:
    """The registered reason phrase of `status`, or "Unknown"."""
    if status == 414:
        return "URI Too Long"  # RFC 9110; Python before 3.13 has an older name
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


def _body(status: int, row: str, text: str) -> bytes:
    lines = [f"{status} {reason_phrase(status)}", f"refused by: {row}", text]
    return "".join(f"{line}\n" for line in lines if line).encode()
