"""What the tests of the attendant share: a served stream, sockets that need no network, clients.

Lives here: `served` and who is at its ends. Must never live here: a test, a fixture (conftest.py).
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import trio
import trio.testing

from trio_ws import Limits, WebSocket
from trio_ws import serve_stream as serve_one
from trio_ws.testing import BINARY, RawPeer, encode_frame

Clock = trio.testing.MockClock
Handler = Callable[[WebSocket], Awaitable[None]]
Pair = Callable[[], tuple[trio.abc.Stream, trio.abc.Stream]]
FRAME = encode_frame(BINARY, b"x" * 1000, masked=True)


def sockets() -> tuple[trio.SocketStream, trio.SocketStream]:
    """Two ends of a socket pair: the kernel delivers at once, so the mock clock may jump."""
    near, far = socket.socketpair()
    for each in (near, far):
        each.setblocking(False)
    return (
        trio.SocketStream(trio.socket.from_stdlib_socket(near)),
        trio.SocketStream(trio.socket.from_stdlib_socket(far)),
    )


@asynccontextmanager
async def served(
    handler: Handler, streams: tuple[trio.abc.Stream, trio.abc.Stream], **limits: Any
) -> AsyncIterator[RawPeer]:
    """`serve_stream` over one stream, and the raw client at the other; at the end the client is
    gone, and the server has to be, too."""
    near, far = streams
    with trio.fail_after(10_000):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(serve_one, handler, near, limits=Limits(**limits)))
            try:
                peer = RawPeer(far)
                await peer.request()
                yield peer
            finally:
                with trio.CancelScope(shield=True):
                    await trio.aclose_forcefully(far)
            nursery.cancel_scope.cancel()


class Sleeper:
    """A handler that leaves its connection alone, and knows how it ended."""

    def __init__(self) -> None:
        self.ws: WebSocket | None = None

    async def __call__(self, ws: WebSocket) -> None:
        self.ws = ws
        await trio.sleep_forever()

    @property
    def closed(self) -> Any:
        return self.ws and self.ws.closed
