"""What a room sends is encoded once for all who can share it, and written in steps.

Lives here: shared frames, compressed or not, instruments, the loop beside a big room. Must never
live here: compression of one connection (test_deflate_serving).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
import trio.testing

from trio_ws import Deflate, Instrument, Policy, Room, WebSocket, serve, serve_stream
from trio_ws.testing import BINARY, RawPeer


@asynccontextmanager
async def compressed(
    room: Room, offers: list[bytes], deflate: Deflate, **options: object
) -> AsyncIterator[list[RawPeer]]:
    """Members that have offered these extensions (b"" for none) to one server."""

    async def handler(ws: WebSocket) -> None:
        async with room.join(ws):
            async for _ in ws:
                pass

    async with trio.open_nursery() as nursery:
        peers = []
        for offer in offers:
            near, far = trio.testing.memory_stream_pair()
            nursery.start_soon(
                partial(serve_stream, handler, far, compression=deflate, policy=Policy(), **options)  # type: ignore[arg-type]
            )
            peer = RawPeer(near, allow_rsv=4)
            headers = [(b"Sec-WebSocket-Extensions", offer)] if offer else []
            await peer.request(headers=headers)
            peers.append(peer)
        await trio.testing.wait_all_tasks_blocked()
        yield peers
        for peer in peers:
            await peer.aclose()


ALONE = b"permessage-deflate; server_no_context_takeover"


async def test_equal_members_without_context_share_a_compressed_frame(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Compressed once for all members with `server_no_context_takeover` and equal parameters,
    afresh for others, not at all for who has not agreed; everyone reads the same message."""
    import zlib

    import trio_ws._permessage as permessage

    made: list[int] = []

    class Counting:
        """zlib, and how many compressors it made."""

        def __getattr__(self, name: str) -> object:
            return getattr(zlib, name)

        def compressobj(self, *arguments: int) -> object:
            made.append(1)
            return zlib.compressobj(*arguments)

    monkeypatch.setattr(permessage, "zlib", Counting())
    room = Room()
    smaller = ALONE + b"; server_max_window_bits=10"
    offers = [ALONE] * 20 + [smaller] * 5 + [b"permessage-deflate"] * 2 + [b""] * 3
    text = "the same again and again " * 40
    async with compressed(room, offers, Deflate(threshold=100)) as peers:
        room.publish(text)
        frames = [await peer.receive_frame() for peer in peers]
        assert len(made) == 1 + 1 + 2
        assert len({bytes(peer.received_bytes) for peer in peers[:20]}) == 1
        room.publish("short")
        for peer in peers:
            assert (await peer.receive_frame()).payload == b"short"
        assert len(made) == 4, "below the threshold nobody compresses"
        room.publish(text)
        again = [await peer.receive_frame() for peer in peers]
    for peer, first, second in zip(peers, frames, again, strict=True):
        inflater = zlib.decompressobj(-15)
        for frame in (first, second):
            payload = frame.payload
            if frame.rsv:
                if offers[peers.index(peer)].startswith(ALONE):
                    inflater = zlib.decompressobj(-15)
                payload = inflater.decompress(payload + b"\x00\x00\xff\xff")
            assert payload == text.encode()
    assert not any(frame.rsv for frame in frames[-3:])


async def test_instruments_hear_of_each_delivery() -> None:
    """`message_sent` is called for every member, as if each had been sent it."""
    sent: list[tuple[int, str]] = []

    class Counter(Instrument):
        def message_sent(self, ws: WebSocket, size: int, kind: str) -> None:
            sent.append((size, kind))

    room = Room()
    async with compressed(room, [b"", b""], Deflate(), instruments=[Counter()]) as peers:
        room.publish("é")
        for peer in peers:
            await peer.receive_frame()
    assert sent == [(2, "text"), (2, "text")]


async def test_a_room_of_a_thousand_lets_others_run_between_its_writes() -> None:
    """About a hundred members are written a step: another task runs in between."""
    room = Room()
    passes = 0

    async def count() -> None:
        nonlocal passes
        while True:
            await trio.lowlevel.checkpoint()
            passes += 1

    async def handler(ws: WebSocket) -> None:
        async with room.join(ws):
            async for _ in ws:
                pass

    # Written in steps by one service task per server: its streams are sockets, written at once.
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, handler, 0, host="127.0.0.1"))
        peers = []
        for _ in range(300):
            peer = RawPeer(await trio.open_tcp_stream("127.0.0.1", server.port))
            await peer.request()
            peers.append(peer)
        with trio.fail_after(10):
            while len(room.members) < 300:
                await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(count)
        before = passes
        room.publish(b"x")
        with trio.fail_after(5):
            await peers[-1].expect(BINARY, b"x")
        assert passes - before >= 2
        for peer in peers:
            await peer.aclose()
        nursery.cancel_scope.cancel()
