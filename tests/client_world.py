"""What the tests of the client share: a server played by the test, and an open connection to it.

Lives here: both, in memory. Must never live here: a test.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio.testing

from trio_ws import Limits, WebSocket, connect_stream
from trio_ws.testing import RawPeer, WrappedStream

URL = "ws://example.com/chat"
PERFECT = Limits(handshake_timeout=7, close_timeout=5, cancel_grace=1)


def server_and_stream() -> tuple[RawPeer, WrappedStream]:
    """A server played by the test, and the client's end of the stream to it."""
    near, far = trio.testing.memory_stream_pair()
    return RawPeer(far, role="server"), WrappedStream(near)


@asynccontextmanager
async def conversation(
    nursery: trio.Nursery, **options: Any
) -> AsyncIterator[tuple[WebSocket, RawPeer]]:
    """An open connection: our client, and a server played by the test."""
    server, stream = server_and_stream()
    nursery.start_soon(server.accept)
    async with connect_stream(stream, URL, **options) as ws:
        yield ws, server
    assert stream.closed
