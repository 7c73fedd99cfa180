"""What the tests of rooms share: a member whose outbound stream the test holds.

Lives here: that seat. Must never live here: a test.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
import trio.testing

from trio_ws import Limits, Member, Room, WebSocket
from trio_ws.testing import RawPeer, StallingStream, open_websocket

SMALL = Limits(max_outbox=100, ping_interval=None, close_timeout=5)


class Seat:
    """A member whose outbound stream the test holds: nothing passes until `stream.release`."""

    def __init__(self, ws: WebSocket, member: Member, stream: StallingStream, peer: RawPeer):
        self.ws, self.member, self.stream, self.peer = ws, member, stream, peer

    async def everything(self) -> list[str | bytes]:
        """Let all pass; the messages that came."""
        self.stream.release()
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(1):
            while True:
                await self.peer.receive_frame()
        return self.peer.messages


def long(number: int) -> str:
    """A message of which two fill an outbox of `SMALL`."""
    return f"{number:04}" + "-" * 56


@asynccontextmanager
async def seat(room: Room, *, limits: Limits = SMALL) -> AsyncIterator[Seat]:
    """A member that takes nothing yet."""
    near, far = trio.testing.memory_stream_pair()
    stream = StallingStream(far, after=0)
    async with RawPeer(near) as peer, open_websocket(stream, limits=limits) as ws:
        async with room.join(ws) as member:
            try:
                yield Seat(ws, member, stream, peer)
            finally:
                stream.release()
                await trio.aclose_forcefully(ws)
