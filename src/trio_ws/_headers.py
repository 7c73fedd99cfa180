"""The grammar of HTTP header fields as far as a handshake needs it (RFC 9110 section 5).

Lives here: tokens, token lists, validation of header fields *we* send, escaping of the peer's text
for logs. Must never live here: a decision about a request. Functions that see a peer's bytes end
in `_untrusted` and fail in one way only: they return None (or, for text, an escaped form).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = [
    "HeaderPairs",
    "check_header_fields",
    "check_token",
    "printable_untrusted",
    "tokens_untrusted",
]

HeaderPairs = Iterable[tuple[bytes | str, bytes | str]]
"""What a caller may give as header fields; names and values are kept as bytes."""

TOKEN = rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+"

_token = re.compile(TOKEN)
_product = re.compile(TOKEN + rb"(?:/" + TOKEN + rb")?")
_field_value = re.compile(rb"[^\x00-\x08\x0a-\x1f\x7f]*")

_NOT_YOURS = frozenset({b"upgrade", b"connection", b"content-length", b"transfer-encoding"})
_NOT_YOURS_PREFIX = b"sec-websocket-"


def tokens_untrusted(values: Iterable[bytes], *, versions: bool = False) -> tuple[str, ...] | None:
    """The elements of a token list spread over any number of fields (RFC 9110 section 5.6.1).

    Empty elements are ignored, as that section asks of recipients. One pass, linear in the input.

    Args:
        values: the values of all fields of one name, in order.
        versions: also admit ``name/version``, the form of `Upgrade` (RFC 9110 section 7.8).

    Returns:
        The elements as sent, or None if one of them is not a token.
    """
    element = _product if versions else _token
    found: list[str] = []
    for value in values:
        for field in value.split(b","):
            part = field.strip(b" \t")
            if not part:
                continue
            if element.fullmatch(part) is None:
                return None
            found.append(part.decode("ascii"))
    return tuple(found)


def check_token(text: str, what: str) -> str:
    """Return `text` if it is a token of RFC 9110 section 5.6.2, else raise ValueError."""
    if not isinstance(text, str):
        raise TypeError(f"{what} must be a str, not {type(text).__name__}")
    if not text.isascii() or _token.fullmatch(text.encode("ascii")) is None:
        raise ValueError(f"{what} {text!r} is not a token (RFC 9110 section 5.6.2)")
    return text


def check_header_fields(headers: HeaderPairs) -> tuple[tuple[bytes, bytes], ...]:
    """Header fields from the application, validated before they can reach a wire.

    Raises:
        ValueError: a name is no token; a value holds CR, LF, NUL, another control character or
            cannot be encoded as Latin-1; or the field frames the message or the upgrade, which is
            the library's own business (`Upgrade`, `Connection`, `Sec-WebSocket-*`,
            `Content-Length`, `Transfer-Encoding`).
    """
    checked: list[tuple[bytes, bytes]] = []
    for name, value in headers:
        raw_name, raw_value = _as_bytes(name), _as_bytes(value)
        if _token.fullmatch(raw_name) is None:
            raise ValueError(f"header name {name!r} is not a token (RFC 9110 section 5.1)")
        if _field_value.fullmatch(raw_value) is None:
            raise ValueError(f"header {name!r} has a value with control characters")
        lowered = raw_name.lower()
        if lowered in _NOT_YOURS or lowered.startswith(_NOT_YOURS_PREFIX):
            raise ValueError(f"header {name!r} belongs to the handshake itself and cannot be set")
        checked.append((raw_name, raw_value.strip(b" \t")))
    return tuple(checked)


def _as_bytes(text: bytes | str) -> bytes:
    """Header text as bytes; UnicodeEncodeError is a ValueError, which is what callers promise."""
    return text.encode("latin-1") if isinstance(text, str) else bytes(text)


def printable_untrusted(value: bytes | str, limit: int = 200) -> str:
    """A peer's text made safe for one line of a log: printable ASCII, escaped, capped.

    Control characters (ESC, CR and LF among them), backslashes and everything outside ASCII become
    backslash escapes; at most `limit` characters are returned, the last three of them dots if
    something was cut off.
    """
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    pieces: list[str] = []
    size = 0
    # One character becomes at least one: nothing behind `limit` can fit.
    for char in text[: limit + 1]:
        piece = char if " " <= char <= "~" and char != "\\" else _escape(char)
        pieces.append(piece)
        size += len(piece)
    if size <= limit:
        return "".join(pieces)
    while pieces and size > limit - 3:
        size -= len(pieces.pop())
    return "".join(pieces) + "..."[: max(limit, 0)]


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
