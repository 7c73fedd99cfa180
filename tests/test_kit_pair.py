"""Ready-made connections and requests of the kit.

Lives here: `open_pair`, `open_websocket`, `request`. Must never live here: tests of what a
connection does (see the scenario files).
"""

from __future__ import annotations

import pytest
import trio
import trio.testing

from trio_ws import ConnectionClosed, Deflate, Limits, Policy
from trio_ws.testing import TEXT, RawPeer, WrappedStream, open_pair, open_websocket, request


async def test_a_pair_talks_both_ways(autojump_clock: trio.testing.MockClock) -> None:
    """Text and bytes, both directions, then a clean end that both sides report."""
    async with open_pair(context="user") as (client, server):
        await client.send("ping")
        assert await server.receive() == "ping"
        await server.send(b"pong")
        assert await client.receive() == b"pong"
        assert server.context == "user"
    assert client.closed is not None
    assert server.closed is not None
    assert (client.closed.code, server.closed.code) == (1000, 1000)


async def test_a_pair_over_streams_that_block(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    """Lockstep streams deliver too, and the end comes without waiting for a timeout."""
    streams = trio.testing.lockstep_stream_pair()
    async with open_pair(streams=streams) as (client, server):
        nursery.start_soon(client.send, "x" * 100_000)
        assert len(await server.receive()) == 100_000
    assert trio.current_time() == 0


@pytest.mark.parametrize(
    "compression",
    [
        Deflate(),
        Deflate(server_no_context_takeover=True, client_no_context_takeover=True),
        Deflate(server_max_window_bits=9, client_max_window_bits=15),
    ],
    ids=["default", "no context", "windows"],
)
async def test_a_pair_may_be_compressed(
    compression: Deflate, autojump_clock: trio.testing.MockClock
) -> None:
    """Both directions, message after message; what is on the wire is a fraction of the text."""
    near, far = (WrappedStream(stream) for stream in trio.testing.memory_stream_pair())
    text = "the same words again, " * 500
    async with open_pair(streams=(near, far), compression=compression) as (client, server):
        for there, here in ((client, server), (server, client)):
            for _ in range(2):
                await there.send(text)
                assert await here.receive() == text
        assert max(near.sent, far.sent) < len(text) / 10
        await client.send(text, compress=False)
        assert await server.receive() == text
        assert near.sent > len(text)


async def test_a_compressed_pair_bounds_what_it_inflates(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """`max_message` counts bytes after inflation, as it does between a client and a server."""
    limits = Limits(max_message=1000)
    async with open_pair(compression=Deflate(), limits=limits) as (client, server):
        await client.send("x" * 1001)
        with pytest.raises(ConnectionClosed) as info:
            await server.receive()
        assert info.value.close.code == 1009


async def test_an_error_in_the_body_comes_out_bare(autojump_clock: trio.testing.MockClock) -> None:
    """No exception group of ours is put around it, and both connections are ended."""
    error = ValueError("mine")
    with pytest.raises(ValueError, match="mine") as info:
        async with open_pair() as (client, server):
            raise error
    assert info.value is error
    for ws in (client, server):
        with pytest.raises(ConnectionClosed):
            await ws.send("x")


async def test_a_websocket_opposite_a_raw_peer() -> None:
    """The other side is frames by hand."""
    near, far = trio.testing.memory_stream_pair()
    peer = RawPeer(far)
    async with open_websocket(near) as ws:
        await peer.send_message("hello")
        assert await ws.receive() == "hello"
        await ws.send("back")
        await peer.expect(TEXT, b"back")
        await peer.send_close(1000)
        assert (await ws.wait_closed()).code == 1000


def test_requests_for_policies() -> None:
    """`request()` is accepted by the default policy; a foreign origin is not."""
    good = request("/room?x=1", origin="http://localhost")
    assert (good.path, good.query, good.host) == ("/room", "x=1", "localhost")
    assert type(Policy().decide(good)).__name__ == "Accept"
    bad = Policy().decide(request(origin="https://evil.example"))
    assert getattr(bad, "status", None) == 403
    odd = request(host=None, headers=[("X-Name", b"\xff"), ("X-Name", "b")])
    assert odd.header_all("x-name") == (b"\xff", b"b")
    assert odd.header("host") is None
