"""What the commands say: exit statuses, and peers' text made safe for a terminal.

Lives here: the table of statuses, escaping, redaction, the forms of a time. Must never live here:
arguments, I/O, trio. Functions that see a peer's text end in `_untrusted`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from trio_ws._headers import printable_untrusted

if TYPE_CHECKING:
    from trio_ws._close import Close

OK: Final = 0
FAILED: Final = 1
"""What the command is for did not work: no reply to a benchmark, a port that is taken."""
USAGE: Final = 2
"""The command line itself is wrong, a URL included; what argparse uses, too."""
NOT_OPENED: Final = 3
"""No answer to the handshake that could be understood: name, TCP, TLS, proxy, time, no HTTP."""
REFUSED: Final = 4
"""An answer other than 101, or a policy that refuses."""
SIGNALLED: Final = 128
"""Plus the number of the signal, as a shell would report it."""

MAX_HEX: Final = 32
"""Bytes of a binary message shown in hexadecimal."""


def status_of(closed: Close | None) -> int:
    """The exit status for the end of a connection.

    0 for 1000, 1001 and 1005; 12 to 25 for 1002 to 1015 (16 is a lost connection); 30 for 3000 to
    3999, 40 for 4000 to 4999.
    """
    code = 1006 if closed is None else int(closed.code)
    if code in (1000, 1001, 1005):
        return OK
    return code - 990 if code < 2000 else code // 1000 * 10


def shown_untrusted(text: str) -> str:
    """A peer's text on one line of a terminal.

    Everything that is not printable becomes a backslash escape: control characters (ESC, line ends
    and the C1 set among them), invisible ones, and those that turn the direction of writing.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


def shown_message_untrusted(message: str | bytes) -> str:
    """A message on one line; of a binary one its size and its first bytes."""
    if isinstance(message, str):
        return shown_untrusted(message)
    more = " ..." if len(message) > MAX_HEX else ""
    return f"<{len(message)} bytes> {message[:MAX_HEX].hex(' ')}{more}"


def reason_of(exc: BaseException) -> str:
    """An error in words, and what the system said about it, if that adds something."""
    said = printable_untrusted(str(exc) or type(exc).__name__, 1000)
    root = exc.__cause__
    while isinstance(root, BaseExceptionGroup) or (root is not None and root.__cause__ is not None):
        root = root.exceptions[0] if isinstance(root, BaseExceptionGroup) else root.__cause__
    if not isinstance(root, OSError) or not root.strerror or root.strerror in said:
        return said
    return f"{said}: {printable_untrusted(root.strerror)}"


# -- secrets -------------------------------------------------------------------------------------

_SECRET_NAME = re.compile(
    rb"auth|cookie|token|secret|passw|credential|session|signature|api-?key"
    rb"|sec-websocket-protocol",  # browsers can send no other header, so it often carries a token
    re.IGNORECASE,
)


def redacted_header_untrusted(name: bytes, value: bytes) -> str:
    """The value of a header for the screen; of one that may hold a secret only its size."""
    if _SECRET_NAME.search(name):
        return f"<redacted, {len(value)} bytes>"
    if name.lower() in (b"location", b"referer"):
        return redacted_target_untrusted(value)
    return printable_untrusted(value, 1000)


def redacted_target_untrusted(target: bytes) -> str:
    """A target or URL with the values of its query left out."""
    path, mark, query = target.partition(b"?")
    names = [part.partition(b"=")[:2] for part in query.split(b"&")]
    kept = b"&".join(name + b"=<redacted>" if equals else b"<redacted>" for name, equals in names)
    return printable_untrusted(path + mark + (kept if mark else b""), 1000)


# -- numbers -------------------------------------------------------------------------------------


def duration(seconds: float) -> str:
    """A time with three digits and the unit that suits it."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{_three_digits(seconds / size)} {unit}"
    return f"{_three_digits(seconds * 1e6)} us"


def _three_digits(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
