"""Cancelling a server tells every peer, within one grace for all of them."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_ws import Limits, Server, WebSocket, open_tcp_listeners, serve_listeners, serve_stream
from trio_ws.testing import RawPeer, StallingStream, upgrade_head

if TYPE_CHECKING:
    from trio_ws._options import Handler

HEAD_SIZE = 200
"""More than a 101 takes and less than a 101 and a message of ours."""

BIG = b"x" * 1_000_000


class StreamsListener(trio.abc.Listener[trio.abc.Stream]):
    """Accepts the given streams, then nothing more."""

    def __init__(self, streams: list[trio.abc.Stream]) -> None:
        self.streams = streams

    async def accept(self) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        if not self.streams:
            await trio.sleep_forever()
        return self.streams.pop()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


async def receives(ws: WebSocket) -> None:
    async for _ in ws:
        pass


class Cancelled:
    """A server of `live` good peers and `deaf` ones, cancelled while all are open."""

    def __init__(self) -> None:
        self.codes: list[int | None] = []
        self.told_after: list[float] = []
        self.took = -1.0
        self.handlers_seen_alive = 0

    async def good(self, peer: RawPeer, cancelled_at: list[float]) -> None:
        frame = await peer.expect_close()
        self.codes.append(frame.close_code)
        self.told_after.append(trio.current_time() - cancelled_at[0])
        with suppress(trio.BrokenResourceError):  # where the grace is over, nobody hears the answer
            await peer.send_close(frame.close_code)
        await peer.read_to_end()
        assert not peer.partial


async def cancel_server(
    handler: Handler, *, live: int, deaf: int, handshaking: int = 0, **options: Any
) -> tuple[Cancelled, list[StallingStream]]:
    """Serve over memory; deaf peers take a 101 and no more. Returns when the server has ended."""
    result = Cancelled()
    cancelled_at: list[float] = []
    goods, stalled, streams = [], [], []
    keep: list[trio.abc.Stream] = []
    for number in range(live + deaf + handshaking):
        ours, theirs = trio.testing.memory_stream_pair()
        keep.append(ours)
        if number < live:
            goods.append(RawPeer(ours))
            streams.append(theirs)
        elif number < live + deaf:
            stalled.append(StallingStream(theirs, after=HEAD_SIZE))
            streams.append(stalled[-1])
            await ours.send_all(upgrade_head())
        else:
            streams.append(theirs)
            await ours.send_all(upgrade_head()[:50])
    scope = trio.CancelScope()

    async def run(task_status: trio.TaskStatus[Server]) -> None:
        with scope:
            await serve_listeners(
                handler, [StreamsListener(list(streams))], task_status=task_status, **options
            )
        result.took = trio.current_time() - cancelled_at[0]

    async with trio.open_nursery() as nursery:
        server = await nursery.start(run)
        for peer in goods:
            await peer.request()
        await trio.testing.wait_all_tasks_blocked()
        result.handlers_seen_alive = len(server.connections)
        cancelled_at.append(trio.current_time())
        for peer in goods:
            nursery.start_soon(result.good, peer, cancelled_at)
        scope.cancel()
    assert scope.cancelled_caught
    for ours in keep[live + deaf :]:
        assert isinstance(ours, trio.StapledStream)
        assert await ours.receive_some() == b"", "in the handshake: closed without a word"
    return result, stalled


@pytest.mark.row("C8")
async def test_500_peers_50_of_them_deaf_one_grace_for_all(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Every live peer hears 1001 at once; the deaf ones cost the one grace, exactly."""

    async def handler(ws: WebSocket) -> None:
        await ws.send(BIG[:1000])
        await receives(ws)

    async def quiet(ws: WebSocket) -> None:
        await receives(ws)

    result, stalled = await cancel_server(
        quiet, live=450, deaf=50, handshaking=5, limits=Limits(cancel_grace=3)
    )
    assert result.handlers_seen_alive == 500
    assert result.codes == [1001] * 450
    assert set(result.told_after) == {0}
    assert result.took == 3
    assert all(stream.closed for stream in stalled)

    result, stalled = await cancel_server(handler, live=0, deaf=50, limits=Limits(cancel_grace=3))
    assert result.took == 3
    assert all(stream.closed for stream in stalled)


@pytest.mark.row("C8")
async def test_without_deaf_peers_nothing_is_waited_for(
    autojump_clock: trio.testing.MockClock,
) -> None:
    result, _ = await cancel_server(receives, live=20, deaf=0, handshaking=3)
    assert result.codes == [1001] * 20
    assert result.took == 0


@pytest.mark.row("C8")
async def test_a_grace_of_0_tells_and_does_not_wait(
    autojump_clock: trio.testing.MockClock,
) -> None:
    result, stalled = await cancel_server(receives, live=20, deaf=20, limits=Limits(cancel_grace=0))
    assert result.codes == [1001] * 20
    assert result.took == 0
    assert all(stream.closed for stream in stalled)


async def shields_itself(ws: WebSocket) -> None:
    with trio.CancelScope(shield=True):
        await receives(ws)


async def owns_a_nursery(ws: WebSocket) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(shields_itself_briefly, ws)
        nursery.start_soon(ws.wait_closed)
        await receives(ws)


async def shields_itself_briefly(ws: WebSocket) -> None:
    with trio.CancelScope(shield=True):
        await ws.wait_closed()


async def is_blocked_in_send(ws: WebSocket) -> None:
    while True:
        await ws.send(BIG)


async def is_blocked_in_a_shielded_send(ws: WebSocket) -> None:
    with trio.CancelScope(shield=True):
        await is_blocked_in_send(ws)


@pytest.mark.row("C12")
@pytest.mark.parametrize(
    "handler",
    [shields_itself, owns_a_nursery, is_blocked_in_send, is_blocked_in_a_shielded_send],
)
@pytest.mark.parametrize("alone", [False, True])
async def test_no_handler_holds_the_server_beyond_the_grace(
    handler: Handler, alone: bool, autojump_clock: trio.testing.MockClock
) -> None:
    """Handlers that shield themselves, own nurseries, or are blocked in `send` to a deaf peer: at
    the end of the grace their connection ends, every waiter wakes, and so does the server."""
    limits = Limits(cancel_grace=2, close_timeout=60)
    if not alone:
        result, stalled = await cancel_server(handler, live=0, deaf=10, limits=limits)
        assert result.handlers_seen_alive == 10
        assert result.took == 2
        assert all(stream.closed for stream in stalled)
        return
    ours, theirs = trio.testing.memory_stream_pair()
    stalled_stream = StallingStream(theirs, after=HEAD_SIZE)
    await ours.send_all(upgrade_head())
    began = trio.current_time()
    with trio.move_on_after(5) as scope:
        await serve_stream(handler, stalled_stream, limits=limits)
    assert scope.cancelled_caught
    assert trio.current_time() - began == 7
    assert stalled_stream.closed


@pytest.mark.row("C12")
async def test_the_peer_of_a_shielded_handler_is_told_at_the_end_of_the_grace(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Until then the handler may go on talking; it is its shield, after all."""

    async def handler(ws: WebSocket) -> None:
        with trio.CancelScope(shield=True):
            while True:
                await trio.sleep(0.4)
                await ws.send("still here")

    result, _ = await cancel_server(
        handler, live=10, deaf=0, limits=Limits(cancel_grace=1), cancel_code=1012
    )
    assert result.codes == [1012] * 10
    assert set(result.told_after) == {1}
    assert result.took == pytest.approx(1.2)


async def test_graces_of_nested_servers_run_side_by_side(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A handler that sees out a connection of its own keeps its peer waiting for the Close, but no
    longer than the grace."""

    async def handler(ws: WebSocket) -> None:
        ours, theirs = trio.testing.memory_stream_pair()
        await ours.send_all(upgrade_head())
        await serve_stream(receives, StallingStream(theirs, after=HEAD_SIZE))

    result, _ = await cancel_server(handler, live=3, deaf=3)
    assert result.codes == [1001] * 3
    assert set(result.told_after) == {1}
    assert result.took == 1


class Mixed:
    """A server on a real socket, whose clients' paths say how they and their handlers behave."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.scope = trio.CancelScope()
        self.ended_at = -1.0
        self.codes: list[int | None] = []
        self.peers: list[tuple[str, RawPeer]] = []

    async def handler(self, ws: WebSocket) -> None:
        if ws.request.path == "/blocked":
            await is_blocked_in_a_shielded_send(ws)
        if ws.request.path == "/shielded":
            await shields_itself(ws)
        await receives(ws)

    async def run(self, task_status: trio.TaskStatus[Server]) -> None:
        listeners = await open_tcp_listeners(0, host="127.0.0.1")
        with self.scope:
            await serve_listeners(
                self.handler, listeners, limits=Limits(cancel_grace=0.3), task_status=task_status
            )
        self.ended_at = trio.current_time()

    async def dial(self, port: int, path: str) -> None:
        peer = RawPeer(await trio.open_tcp_stream("127.0.0.1", port))
        await peer.request(path)
        self.peers.append((path, peer))
        if path == "/":
            self.nursery.start_soon(self.answer, peer)

    async def answer(self, peer: RawPeer) -> None:
        self.codes.append((await peer.expect_close()).close_code)
        await peer.send_close(1001)
        await peer.expect_eof()


@pytest.mark.row("C8", "C12")
async def test_on_real_sockets_live_deaf_and_blocked_peers_share_one_grace() -> None:
    """The raw twin: a short grace, a generous bound; every peer that can be is told, and nobody
    listens any more."""
    async with trio.open_nursery() as nursery:
        mixed = Mixed(nursery)
        server = await nursery.start(mixed.run)
        for path, count in (("/", 60), ("/deaf", 10), ("/blocked", 5), ("/shielded", 5)):
            for _ in range(count):
                await mixed.dial(server.port, path)
        with trio.fail_after(10):
            while len(server.connections) < 80:
                await trio.sleep(0.01)
        cancelled_at = trio.current_time()
        mixed.scope.cancel()
    assert mixed.codes == [1001] * 60
    assert 0.3 <= mixed.ended_at - cancelled_at < 5
    for path, peer in mixed.peers:
        if path == "/blocked":
            await peer.read_to_end()
        elif path != "/":
            await peer.expect_close(1001)
            await peer.expect_eof()
        await peer.aclose()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", server.port))
