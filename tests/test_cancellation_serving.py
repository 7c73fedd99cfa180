"""Cancelling handlers and whole connections, and many tasks on one connection.

Lives here: the sweep over `serve_stream`, the grace, concurrent senders, waiters that are cancelled
at random. Must never live here: accepting (see test_server_accepting), single calls (see
test_cancellation).
"""

from __future__ import annotations

import math
import random
import ssl
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from trio_ws import ConnectionClosed, Limits, WebSocket, serve_stream
from trio_ws.testing import (
    CLOSE,
    PING,
    ChunkedStream,
    Frame,
    FrameError,
    RawPeer,
    StallingStream,
    Target,
    cancel_at_every_step,
    open_websocket,
)

LIMITS = Limits()


class Client:
    """A live client: shakes hands, says hello, answers pings and Close, reads to the end."""

    def __init__(self, stream: trio.abc.Stream, *, silent: bool = False) -> None:
        self.peer = RawPeer(stream)
        self.open = False
        self.silent = silent

    async def run(self) -> None:
        try:
            await self.peer.request()
            self.open = True
            await self.peer.send_message("hello")
            while True:
                frame = await self.peer.receive_frame()
                if frame.opcode == CLOSE and not self.silent:
                    await self.peer.send_close(frame.close_code)
        except FrameError:
            raise
        except (trio.EndOfChannel, trio.BrokenResourceError, AssertionError):
            pass

    @property
    def last_code(self) -> int | None:
        frames = self.peer.frames
        return frames[-1].close_code if frames and frames[-1].opcode == CLOSE else None


async def echo(ws: WebSocket) -> None:
    async for message in ws:
        await ws.send(message)


async def talkative(ws: WebSocket) -> None:
    await ws.send(await ws.receive())
    await ws.ping()


async def swallowing(ws: WebSocket) -> None:
    try:
        await echo(ws)
    except trio.Cancelled:
        pass


HANDLERS = {"echo": echo, "talkative": talkative, "swallowing": swallowing}


@pytest.mark.row("C1", "C2", "C8")
@pytest.mark.parametrize("silent", [False, True], ids=["live", "silent"])
@pytest.mark.parametrize("handler", HANDLERS.values(), ids=HANDLERS.keys())
@pytest.mark.parametrize("secure", [False, True], ids=["memory", "tls"])
def test_a_cancelled_connection_says_1001(
    secure: bool,
    handler: Callable[[WebSocket], Awaitable[None]],
    silent: bool,
    server_ssl_context: ssl.SSLContext,
    client_ssl_context: ssl.SSLContext,
) -> None:
    """`serve_stream` cancelled at every step: the stream is closed within `cancel_grace`, the peer
    has whole frames, and a live peer whose handshake was done has a Close as the last of them."""

    async def scenario(target: Target) -> None:
        near, far = trio.testing.memory_stream_pair()
        chunked = ChunkedStream(near, 200 if secure else 11)
        target.watch(chunked)
        stream: trio.abc.Stream = chunked
        outer: trio.abc.Stream = far
        if secure:
            stream = trio.SSLStream(
                chunked, server_ssl_context, server_side=True, https_compatible=True
            )
            outer = trio.SSLStream(
                far, client_ssl_context, server_hostname="localhost", https_compatible=True
            )
        client = Client(outer, silent=silent)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.run)
            async with target:
                with trio.move_on_after(30):
                    await serve_stream(handler, stream)
            assert chunked.closed
            if target.fired_at is not None:
                assert trio.current_time() - target.fired_at <= LIMITS.cancel_grace
        if client.open and target.cancelled and client.peer.frames:
            assert client.last_code in (1000, 1001)
        assert not client.peer.partial
        await trio.aclose_forcefully(outer)

    report = cancel_at_every_step(scenario, stride=3 if secure else 1)
    print(report)
    assert report.partial_writes


@pytest.mark.row("C8")
async def test_one_grace_for_all(autojump_clock: trio.testing.MockClock) -> None:
    """Twenty live, ten silent and ten deaf peers: cancelled together, all are gone one grace later;
    the live ones at once and with 1001."""
    live: list[Client] = []
    silent: list[Client] = []
    deaf: list[Client] = []
    finished: list[float] = []

    async def serve(stream: trio.abc.Stream) -> None:
        try:
            await serve_stream(echo, stream)
        finally:
            finished.append(trio.current_time())

    async with trio.open_nursery() as clients:
        async with trio.open_nursery() as servers:
            for number in range(40):
                near, far = trio.testing.memory_stream_pair()
                client = Client(far, silent=number >= 20)
                stalling = StallingStream(near, after=1 << 20)
                (live if number < 20 else silent if number < 30 else deaf).append(client)
                clients.start_soon(client.run)
                servers.start_soon(serve, stalling)
                if number >= 30:
                    await trio.testing.wait_all_tasks_blocked()
                    stalling.stall()
                    await client.peer.send_message("more")
            await trio.sleep(5)
            start = trio.current_time()
            servers.cancel_scope.cancel()
        assert trio.current_time() - start == LIMITS.cancel_grace
        assert [when - start for when in sorted(finished)] == [0.0] * 20 + [1.0] * 20
    assert [client.last_code for client in (*live, *silent)] == [1001] * 30
    assert [client.last_code for client in deaf] == [None] * 10


@pytest.mark.row("C7")
async def test_fifty_tasks_on_one_connection(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    """Sends, pings and closes of fifty tasks: whole frames, in each task's order, nothing that
    returned is missing, nobody is told that the resource is busy."""
    near, far = trio.testing.memory_stream_pair()
    peer = RawPeer(far)
    returned: list[str | bytes] = []
    ended: list[ConnectionClosed] = []

    async def answer() -> None:
        try:
            while True:
                frame = await peer.receive_frame()
                if frame.opcode == PING:
                    await peer.send_pong(frame.payload)
                elif frame.opcode == CLOSE:
                    await peer.send_close(1000)
        except trio.EndOfChannel:
            pass

    nursery.start_soon(answer)
    dice = random.Random(7)
    async with open_websocket(ChunkedStream(near, 113), limits=Limits(max_outbox=500)) as ws:

        async def talk(number: int) -> None:
            try:
                for turn in range(6):
                    message = f"{number}.{turn}." + "x" * dice.randrange(200)
                    await ws.send(message)
                    returned.append(message)
                    await ws.ping()
                if number % 10 == 0:
                    await ws.close(4000, f"by {number}")
            except ConnectionClosed as exc:
                ended.append(exc)

        async with trio.open_nursery() as talkers:
            for number in range(50):
                talkers.start_soon(talk, number)
    assert sorted(map(str, peer.messages)) == sorted(map(str, returned))
    for number in range(50):
        mine = [m for m in map(str, peer.messages) if m.startswith(f"{number}.")]
        assert [m.split(".")[1] for m in mine] == [str(turn) for turn in range(len(mine))]
    assert [frame.opcode for frame in peer.frames].count(CLOSE) == 1
    assert all(exc.close is ws.closed for exc in ended)


@pytest.mark.row("C9")
@pytest.mark.parametrize("kind", [bytearray, lambda data: memoryview(bytearray(data))])
async def test_a_buffer_may_be_reused_at_once(
    kind: Callable[[bytes], bytearray], autojump_clock: trio.testing.MockClock
) -> None:
    """What is changed right after `send` returned arrives unchanged, also while the peer stalls."""
    near, far = trio.testing.memory_stream_pair()
    stalling = StallingStream(near, after=2)
    peer = RawPeer(far)
    buffer = kind(b"old old old")
    async with open_websocket(stalling) as ws:
        await ws.send(buffer)
        buffer[:] = b"new new new"
        await ws.send(buffer)
        buffer[:] = b"even newer!"
        stalling.release()
        assert await peer.receive_message() == b"old old old"
        assert await peer.receive_message() == b"new new new"
        await peer.send_close(1000)


@pytest.mark.row("C11")
async def test_somebody_always_takes_over(autojump_clock: trio.testing.MockClock) -> None:
    """500 seeds: waiters in `receive`, `ping`, `wait_closed`, some cancelled at random moments,
    nobody re-entering; whoever is left is served in the very moment the peer speaks."""
    for seed in range(500):
        await one_seed(seed)


async def one_seed(seed: int) -> None:
    dice = random.Random(seed)
    near, far = trio.testing.memory_stream_pair()
    peer = RawPeer(far)
    kinds = ["receive", *dice.choices(["ping", "wait_closed"], k=dice.randrange(1, 6))]
    dice.shuffle(kinds)
    victims = set(dice.sample(range(len(kinds)), dice.randrange(len(kinds))))
    if all(kinds[i] == "receive" for i in range(len(kinds)) if i not in victims):
        kinds.append("wait_closed")  # somebody has to be there to see the Close
    served: dict[int, float] = {}
    limits = [
        dice.choice([0.0, 0.5, 1.0, 1.5, 2.0]) if i in victims else math.inf
        for i in range(len(kinds))
    ]

    async def wait(ws: WebSocket, number: int) -> None:
        with trio.move_on_after(limits[number]):
            try:
                await getattr(ws, kinds[number])()
            except ConnectionClosed:
                assert ws.closed is not None
            served[number] = trio.current_time()

    async with open_websocket(near) as ws:
        async with trio.open_nursery() as nursery:
            for number in range(len(kinds)):
                nursery.start_soon(wait, ws, number)
            await trio.sleep(3)
            if dice.random() < 0.7:
                await peer.send_message("a message")
            await trio.sleep(1)
            pings = [frame for frame in await sent_so_far(peer) if frame.opcode == PING]
            if pings and dice.random() < 0.7:
                await peer.send_pong(dice.choice(pings).payload)
            await trio.sleep(1)
            await (peer.send_close(1000) if dice.random() < 0.5 else peer.aclose())
            end = trio.current_time()
    stayed = [number for number in range(len(kinds)) if number not in victims]
    late = {number: kinds[number] for number in stayed if served.get(number, math.inf) > end}
    assert not late, f"seed {seed}: stuck in {late}"
    await peer.aclose()


async def sent_so_far(peer: RawPeer) -> list[Frame]:
    """Every frame that is there to be read now."""
    with trio.move_on_after(0.01):
        await peer.read_to_end()
    return peer.frames


@pytest.mark.row("C11")
async def test_waiters_behind_a_full_read_ahead_wake_when_somebody_receives(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    """With the read-ahead full nobody reads on; one who receives makes room, and the Close behind
    the messages reaches everybody who waits."""
    near, far = trio.testing.memory_stream_pair()
    peer = RawPeer(far)
    ended: list[str] = []
    async with open_websocket(near, limits=Limits(read_ahead=100)) as ws:

        async def wait_closed() -> None:
            await ws.wait_closed()
            ended.append("wait_closed")

        async def ping() -> None:
            with pytest.raises(ConnectionClosed):
                await ws.ping()
            ended.append("ping")

        nursery.start_soon(wait_closed)
        nursery.start_soon(ping)
        for _ in range(5):
            await peer.send_message(b"x" * 200)
            await trio.sleep(1)
        await peer.send_close(1000)
        await trio.sleep(10)
        assert ended == []
        assert ws.closed is None
        messages = [message async for message in ws]
        assert messages == [b"x" * 200] * 5
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(ended) == ["ping", "wait_closed"]
