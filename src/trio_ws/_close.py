"""Close codes and the value that says how a connection ended (RFC 6455 section 7).

Lives here: the names of the codes, which of them may be sent or received, the `Close` value.
Must never live here: frames, state, I/O.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal, TypeAlias

__all__ = ["Close", "CloseCode"]

Initiator: TypeAlias = Literal["local", "peer", "nobody"]

MAX_REASON_BYTES = 123
"""A control frame carries at most 125 bytes, two of which are the code (section 5.5)."""


class CloseCode(IntEnum):
    """The registered close codes (RFC 6455 section 7.4.1 and the IANA registry)."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    NO_STATUS = 1005
    """The peer's Close frame had no code. Never on the wire."""
    ABNORMAL = 1006
    """There was no Close frame. Never on the wire."""
    INVALID_DATA = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    MANDATORY_EXTENSION = 1010
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    BAD_GATEWAY = 1014
    TLS_HANDSHAKE = 1015
    """TLS failed before there was a connection. Never on the wire."""


def may_be_on_the_wire(code: int) -> bool:
    """Whether a Close frame may carry `code` (sections 7.4.1, 7.4.2; the IANA registry)."""
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


def check_outgoing_close(code: object, reason: object) -> None:
    """Refuse with ValueError what must not be put into a Close frame by the application."""
    if not isinstance(code, int) or not may_be_on_the_wire(code):
        raise ValueError(f"close code {code!r} cannot be sent (RFC 6455 section 7.4)")
    if not isinstance(reason, str):
        raise ValueError(  # noqa: TRY004  one kind of refusal for all that cannot be sent
            f"close reason must be a str, not {type(reason).__name__}"
        )
    try:
        size = len(reason.encode())
    except UnicodeEncodeError as exc:
        raise ValueError("close reason holds a lone surrogate, which UTF-8 cannot carry") from exc
    if size > MAX_REASON_BYTES:
        raise ValueError(f"close reason takes {size} bytes of UTF-8; {MAX_REASON_BYTES} fit")


@dataclass(frozen=True, kw_only=True, slots=True)
class Close:
    """How a connection ended.

    Attributes:
        code: the peer's close code where its Close frame arrived; 1005 if that frame held none;
            the code of our own Close where a fault of the peer's made us close (1002, 1007,
            1009); 1006 where no closing handshake took place.
        reason: the words that came with the code, or "".
        initiator: whose Close frame went out first: "local", "peer", or "nobody" (1006).
    """

    code: int
    reason: str = ""
    initiator: Initiator

    def __str__(self) -> str:
        try:
            name = CloseCode(self.code).name.replace("_", " ").lower()
        except ValueError:
            name = "application" if self.code >= 4000 else "registered"
        by = {"local": "by us", "peer": "by the peer", "nobody": "without a closing handshake"}
        reason = f" {self.reason!a}" if self.reason else ""
        return f"{int(self.code)} ({name}){reason}, closed {by[self.initiator]}"
