"""What a peer may cost: one frozen value with every bound, and the reason for each default.

Lives here: numbers and their validation. Must never live here: enforcement.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

__all__ = ["Limits"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Bounds of a server's or client's connections. Sizes in bytes, times in seconds.

    ``None`` means "no such limit" where a field admits it. With these defaults one connection
    holds at most one read, five times `max_message` (bytes plus the decoded text), `read_ahead`,
    `max_outbox` and the largest message *we* send, whatever the peer does. (Python decodes wide
    text through one copy more; that one there is once in a process, for a moment.)

    Raises:
        ValueError: a number is negative, not finite, or zero where zero means nothing.
        TypeError: a value is not a number.
    """

    max_header_bytes: int = 16 * 1024
    """The request head. Cookies fit (servers commonly allow 8 to 16 KiB). Over it: 431."""

    max_headers: int = 128
    """Header lines in a request head; twice what proxies and browsers add. Over it: 431."""

    max_target: int = 8 * 1024
    """The request target. RFC 9112 section 3 recommends at least 8000 bytes. Over it: 414."""

    handshake_timeout: float = 10.0
    """TLS, request head and decision together. A slow mobile link needs about 3 s."""

    max_message: int = 1024 * 1024
    """One received message, in true bytes after inflation; over it the connection closes with
    1009. Large enough for chat, telemetry and JSON; what is larger should be chosen knowingly."""

    max_fragments: int | None = 4096
    """Frames of one message: 256-byte fragments still reach 1 MiB; a flood of empty ones ends
    with 1009."""

    read_ahead: int = 64 * 1024
    """Bytes read for a handler that is not receiving: one socket read, so that a pong or a Close
    behind a few messages is still seen."""

    max_outbox: int = 64 * 1024
    """High-water mark of the outbox: `send` waits above it; one message may exceed it. About what a
    kernel's socket buffer holds."""

    ping_interval: float | None = 20.0
    """Silence after which a keepalive ping goes out; under the 30 to 60 s idle limits of common
    proxies."""

    ping_timeout: float | None = 20.0
    """Time a ping, or a blocked write, may go without any sign of life before the peer is lost."""

    idle_timeout: float | None = None
    """Time without a message in either direction after which we close with 1001. Off: many good
    connections are silent."""

    max_lifetime: float | None = None
    """Age at which we close with 1001, for rolling credentials and load. Off: a choice of yours."""

    close_timeout: float = 5.0
    """The closing handshake with the teardown behind it; also draining after a refused request."""

    cancel_grace: float = 1.0
    """How long cancellation may be delayed to tell the peer (Close 1001) and hear its reply; 0
    tells it without waiting."""

    max_connections: int | None = None
    """Streams held at once, silent ones and handshakes included; above it: 503."""

    max_connections_per_address: int | None = None
    """The same per client address (IPv6: per /64); above it: 429."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            optional = "None" in str(field.type)
            if value is None and optional:
                continue
            kinds = (int, float) if "float" in str(field.type) else (int,)
            if not isinstance(value, kinds) or isinstance(value, bool):
                wanted = "a number" if float in kinds else "an int"
                raise TypeError(f"Limits.{field.name} must be {wanted}, not {value!r}")
            zero_is_fine = field.name in ("cancel_grace", "read_ahead", "max_message")
            if not math.isfinite(value) or value < 0 or (value == 0 and not zero_is_fine):
                raise ValueError(f"Limits.{field.name} must be finite and positive, not {value!r}")
