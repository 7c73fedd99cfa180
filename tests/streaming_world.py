"""What the tests of messages in pieces share: a server's WebSocket and a raw client.

Lives here: the two, and sizes. Must never live here: a test.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import trio
import trio.testing

from trio_ws import Limits, WebSocket
from trio_ws.testing import RawPeer, StallingStream, open_websocket

KIB, MIB = 1024, 1024 * 1024


@asynccontextmanager
async def opposite(**limits: Any) -> AsyncIterator[tuple[WebSocket, RawPeer, StallingStream]]:
    """A server's WebSocket, a raw client, and the valve of what the server writes (open). At the
    end the client is gone: nobody waits for its Close."""
    near, far = trio.testing.memory_stream_pair()
    valve = StallingStream(near, after=1 << 60)
    async with open_websocket(valve, limits=Limits(**limits)) as ws:
        yield ws, RawPeer(far), valve
        await trio.aclose_forcefully(far)


@contextmanager
def no_growth(bound: int) -> Any:
    """At most `bound` bytes more are allocated at any moment within the block."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        yield
        peak = tracemalloc.get_traced_memory()[1] - before
        assert peak < bound, f"{peak} bytes"
    finally:
        tracemalloc.stop()
