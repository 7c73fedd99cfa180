"""What the tests of the bare frame machine share: one end, and bytes one at a time.

Lives here: these. Must never live here: a test, what compressed messages need too (frames_world).
"""

from __future__ import annotations

from trio_ws._limits import Limits
from trio_ws._protocol import Protocol
from trio_ws.testing import CLOSE

from .frames_world import frame


def machine(
    *, client: bool = False, max_message: int = 2**20, max_fragments: int | None = 4096
) -> Protocol:
    """One end, with these limits."""
    limits = Limits(max_message=max_message, max_fragments=max_fragments)
    return Protocol(client=client, limits=limits)


def close(code: int, reason: bytes = b"") -> bytes:
    return frame(CLOSE, code.to_bytes(2, "big") + reason)


def dribble(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]
