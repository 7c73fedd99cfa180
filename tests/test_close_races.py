"""How connections end: every order of Close frames, ends without one, and who is told what.

Lives here: the close state machine through the front door, on memory streams and the mock clock.
Must never live here: frames that cannot be parsed (see test_hostile_peers), real sockets (see
test_raw_connection).
"""

from __future__ import annotations

import random
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
import trio.testing

from trio_ws import (
    Close,
    ConnectionClosed,
    ConnectionLost,
    Limits,
    WebSocket,
    serve_stream,
)
from trio_ws.testing import (
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    BreakingStream,
    ChunkedStream,
    DelayedStream,
    RawPeer,
    WrappedStream,
    encode_frame,
    open_pair,
    open_websocket,
)

LIMITS = Limits()


@asynccontextmanager
async def opposite(
    *, client: bool = False, limits: Limits = LIMITS
) -> AsyncIterator[tuple[WebSocket, RawPeer, WrappedStream]]:
    """A WebSocket, the raw peer at its other end, and the WebSocket's stream."""
    near, far = trio.testing.memory_stream_pair()
    stream = WrappedStream(near)
    peer = RawPeer(far, role="server" if client else "client")
    async with open_websocket(stream, client=client, limits=limits) as ws:
        yield ws, peer, stream


async def all_calls_tell(ws: WebSocket, close: Close, kind: type[Exception]) -> None:
    """Every call raises its own new object with the one story, of the kind trio code expects."""
    seen: list[BaseException] = []
    for call in (lambda: ws.send("x"), ws.ping):
        with pytest.raises(ConnectionClosed) as info:
            await call()
        assert info.value.close is ws.closed
        assert isinstance(info.value, kind)
        seen.append(info.value)
    assert len({id(exc) for exc in seen}) == 2
    assert ws.closed == close
    assert await ws.wait_closed() == close


@pytest.mark.row("D1")
@pytest.mark.parametrize("client", [False, True], ids=["server", "client"])
async def test_the_peers_close_is_echoed_and_reported(
    client: bool, autojump_clock: trio.testing.MockClock
) -> None:
    """Close 1000 "bye": echoed, reported as the peer's, `async for` ends quietly."""
    async with opposite(client=client) as (ws, peer, stream):
        await peer.send_message("last words")
        await peer.send_close(1000, "bye")
        assert [message async for message in ws] == ["last words"]
        await peer.expect_close(1000)
        if not client:  # the server closes TCP first (RFC 6455 section 7.1.1)
            await peer.expect_eof()
            assert stream.closed
        await all_calls_tell(
            ws, Close(code=1000, reason="bye", initiator="peer"), trio.BrokenResourceError
        )
        with pytest.raises(trio.EndOfChannel):
            await ws.receive()
        await peer.aclose()


@pytest.mark.row("D1")
@pytest.mark.parametrize(
    ("code", "quiet"), [(1000, True), (1001, True), (None, True), (1002, False), (4000, False)]
)
async def test_which_ends_are_quiet(code: int | None, quiet: bool) -> None:
    """`receive` raises EndOfChannel for 1000, 1001 and no code, BrokenResourceError otherwise."""
    async with opposite() as (ws, peer, _):
        await peer.send_close(code)
        kind = trio.EndOfChannel if quiet else trio.BrokenResourceError
        with pytest.raises(ConnectionClosed) as info:
            await ws.receive()
        assert isinstance(info.value, kind)
        assert not isinstance(info.value, ConnectionLost)
        assert info.value.close.code == (code or 1005)
        echo = await peer.expect_close()
        assert echo.close_code == (code or 1005)


@pytest.mark.row("D3")
async def test_both_sides_close_in_every_order(autojump_clock: trio.testing.MockClock) -> None:
    """100 seeds of who closes when over lines with delays: one Close frame each, both sides end in
    well under `close_timeout`, and each reports the code of the other's frame."""
    for seed in range(100):
        await one_seed(seed)


async def one_seed(seed: int) -> None:
    dice = random.Random(seed)
    near, far = trio.testing.memory_stream_pair()
    streams = tuple(
        DelayedStream(ChunkedStream(end, dice.choice([1, 3, 100])), send=dice.choice([0, 0.01]))
        for end in (near, far)
    )
    moments = {side: dice.choice([0, 0.01, 0.02, 0.05]) for side in ("client", "server")}
    start = trio.current_time()

    async def side(ws: WebSocket, code: int, moment: float) -> None:
        await trio.sleep(moment)
        await ws.close(code)

    async with open_pair(streams=(streams[0], streams[1])) as (client, server):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(side, client, 4001, moments["client"])
            nursery.start_soon(side, server, 4002, moments["server"])
            if dice.random() < 0.5:
                nursery.start_soon(client.wait_closed)
                nursery.start_soon(server.wait_closed)
        assert trio.current_time() - start < 2, f"seed {seed}"
    for ws, theirs in ((client, 4002), (server, 4001)):
        assert ws.closed is not None
        mine = 8003 - theirs
        # Whoever was first heard its own code echoed; if both spoke, each reports the other's.
        assert ws.closed.code in (theirs, mine), f"seed {seed}"
        assert ws.closed.code == theirs or ws.closed.initiator == "local", f"seed {seed}"
    assert client.closed is not None
    assert server.closed is not None
    assert {client.closed.code, server.closed.code} != {4001, 4002} or (
        client.closed.code == 4002
    ), f"seed {seed}"


@pytest.mark.row("D3")
@pytest.mark.parametrize("client", [False, True], ids=["server", "client"])
async def test_closes_that_cross_on_the_wire(
    client: bool, autojump_clock: trio.testing.MockClock
) -> None:
    """The peer's Close is under way when we send ours: no second Close from us, its code counts."""
    async with opposite(client=client) as (ws, peer, _):
        await peer.send_close(4002, "theirs")
        with trio.fail_after(1):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ws.close, 4001, "ours")
                assert (await peer.expect_close()).close_code == 4001
                await peer.aclose()
        assert ws.closed == Close(code=4002, reason="theirs", initiator="local")
    assert [frame.opcode for frame in peer.frames] == [CLOSE]


@pytest.mark.row("D5")
@pytest.mark.parametrize("client", [False, True], ids=["server", "client"])
async def test_a_peer_that_never_answers_our_close(
    client: bool, autojump_clock: trio.testing.MockClock
) -> None:
    """The stream is closed exactly at `close_timeout`, and the story is 1006."""
    async with opposite(client=client, limits=Limits(close_timeout=3)) as (ws, peer, stream):
        start = trio.current_time()
        await ws.close(1000)
        assert trio.current_time() - start == 3
        assert stream.closed
        await all_calls_tell(ws, Close(code=1006, initiator="nobody"), trio.ClosedResourceError)
        await peer.expect_close(1000)
        with pytest.raises(ConnectionLost):
            await ws.receive()


@pytest.mark.row("D6")
async def test_what_comes_behind_our_close_is_discarded(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    """Messages, pings and pongs behind our Close: no error, no pong, no message; then the answer
    ends it."""
    async with opposite() as (ws, peer, _):
        await peer.send_message("unread")
        nursery.start_soon(ws.close, 4000)
        await peer.expect_close(4000)
        await peer.send_message("late")
        await peer.send_ping(b"?")
        await peer.send_pong(b"!")
        await peer.send_frame(TEXT, b"half", fin=False)
        await peer.send_close(4000)
        await peer.expect_eof()
        assert ws.closed == Close(code=4000, initiator="local")
        with pytest.raises(trio.ClosedResourceError):
            await ws.receive()
    assert [frame.opcode for frame in peer.frames] == [CLOSE]


@pytest.mark.row("D6")
async def test_what_comes_behind_the_peers_close_is_discarded() -> None:
    """Bytes behind the peer's Close are not looked at."""
    async with opposite() as (ws, peer, _):
        await peer.send_close(1000)
        await peer.send_message("late")
        await peer.send_raw(b"\xff\xff\xff no frame at all")
        assert [message async for message in ws] == []
        await peer.expect_close(1000)
        assert ws.closed == Close(code=1000, initiator="peer")


@pytest.mark.row("D7")
@pytest.mark.parametrize("code", [1000, 4123])
async def test_a_close_inside_a_fragmented_message(code: int) -> None:
    """It ends the conversation there and then: the code is echoed, the fragments are dropped."""
    async with opposite() as (ws, peer, _):
        await peer.send_frame(TEXT, b"never ", fin=False)
        await peer.send_frame(CONTINUATION, b"finished", fin=False)
        await peer.send_close(code)
        with pytest.raises(ConnectionClosed) as info:
            await ws.receive()
        assert info.value.close == Close(code=code, initiator="peer")
        await peer.expect_close(code)
        await peer.expect_eof()


@pytest.mark.row("D10")
@pytest.mark.parametrize("torn", [b"", b"\x81", b"\x81\x85abcd", b"\x01\x80abcd"])
@pytest.mark.parametrize("breaks", [False, True], ids=["eof", "break"])
async def test_an_end_without_a_close_is_1006(torn: bytes, breaks: bool) -> None:
    """EOF or a broken stream, at a boundary or inside a frame: 1006, never 1000; what was complete
    before is delivered first."""
    near, far = trio.testing.memory_stream_pair()
    peer = RawPeer(far)
    await peer.send_message("complete")
    await peer.send_raw(torn)
    size = 14 + len(torn)
    stream = BreakingStream(near, receive_at=size) if breaks else WrappedStream(near)
    await peer.send_eof()
    async with open_websocket(stream) as ws:
        assert await ws.receive() == "complete"
        with pytest.raises(ConnectionLost) as info:
            await ws.receive()
        assert isinstance(info.value, trio.BrokenResourceError)
        assert info.value.close == Close(code=1006, initiator="nobody")
        with pytest.raises(ConnectionLost):
            await ws.receive()
        await all_calls_tell(ws, Close(code=1006, initiator="nobody"), trio.BrokenResourceError)


@pytest.mark.row("D10")
async def test_a_write_that_fails_ends_everybody_with_its_cause(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A stream that breaks while sending: every waiter wakes with 1006, the cause is chained."""
    near, far = trio.testing.memory_stream_pair()
    causes: list[BaseException | None] = []
    async with open_websocket(BreakingStream(near, send_at=20)) as ws:

        async def wait() -> None:
            with pytest.raises(ConnectionLost) as info:
                await ws.receive()
            causes.append(info.value.__cause__)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            nursery.start_soon(ws.wait_closed)
            with pytest.raises(ConnectionLost):
                while True:
                    await ws.send(b"x" * 15)
    assert isinstance(causes[0], trio.BrokenResourceError)
    await RawPeer(far).aclose()


@pytest.mark.row("D11")
async def test_a_half_close_still_gets_its_reply(autojump_clock: trio.testing.MockClock) -> None:
    """A client that shuts its sending side after a request still reads the reply, then the end."""
    near, far = trio.testing.memory_stream_pair()
    peer = RawPeer(far)

    async def handler(ws: WebSocket) -> None:
        async for message in ws:
            await trio.sleep(1)
            await ws.send(f"reply to {message!r}")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_stream, handler, near)
        await peer.request()
        await peer.send_message("request")
        await peer.send_eof()
        assert await peer.receive_message() == "reply to 'request'"
        await peer.read_to_end()
        assert not peer.partial


@pytest.mark.row("D13")
async def test_a_protocol_error_is_answered_with_1002() -> None:
    """The Close frame is on the wire, the rest of what the peer sends is swallowed, the handler is
    told the code we closed with."""
    async with opposite() as (ws, peer, _):
        await peer.send_message("good")
        await peer.send_frame(0x3, b"bad")
        await peer.send_message("ignored")
        assert await ws.receive() == "good"
        with pytest.raises(ConnectionClosed) as info:
            await ws.receive()
        assert isinstance(info.value, trio.BrokenResourceError)
        assert info.value.close.code == 1002
        assert info.value.close.initiator == "local"
        await peer.expect_close(1002)
        await peer.aclose()


@pytest.mark.row("D13")
async def test_replies_to_messages_before_a_fault_go_out_before_our_close() -> None:
    """A fault in the same read as complete messages waits until they have been received."""
    async with opposite() as (ws, peer, _):
        await peer.send_message("one")
        await peer.send_message("two")
        await peer.send_frame(0x3, b"bad")
        for expected in ("one", "two"):
            message = await ws.receive()
            assert message == expected
            assert ws.closed is None
            await ws.send(message)
        with pytest.raises(ConnectionClosed):
            await ws.receive()
        assert await peer.receive_message() == "one"
        assert await peer.receive_message() == "two"
        await peer.expect_close(1002)
        await peer.aclose()


@pytest.mark.row("D13")
async def test_a_fault_behind_messages_is_settled_when_nobody_receives(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """Who waits for the end hears of it within two ticks of the attendant; the messages that came
    before can still be received."""
    received: list[str | bytes] = []

    async def handler(ws: WebSocket) -> None:
        received.append(await ws.receive())
        with trio.fail_after(2.1):
            assert (await ws.wait_closed()).code == 1002
        received.append(await ws.receive())
        with pytest.raises(ConnectionClosed):
            await ws.receive()

    near, far = trio.testing.memory_stream_pair()
    nursery.start_soon(partial(serve_stream, handler, near, raise_handler_errors=True))
    peer = RawPeer(far)
    await peer.request()
    await peer.send_message("one")
    await peer.send_message("two")
    await peer.send_frame(0x3, b"bad")
    await peer.expect_close(1002)
    await peer.aclose()
    await trio.testing.wait_all_tasks_blocked()
    assert received == ["one", "two"]


@pytest.mark.row("D17")
@pytest.mark.parametrize("closer", ["client", "server"])
@pytest.mark.parametrize("kind", ["memory", "lockstep", "tls"])
async def test_no_time_is_spent_once_both_closes_have_passed(
    kind: str,
    closer: str,
    autojump_clock: trio.testing.MockClock,
    server_ssl_context: ssl.SSLContext,
    client_ssl_context: ssl.SSLContext,
) -> None:
    """Whoever begins, with a busy task beside it: both sides are gone at virtual second 0."""
    near: trio.abc.Stream
    far: trio.abc.Stream
    near, far = (
        trio.testing.lockstep_stream_pair()
        if kind == "lockstep"
        else trio.testing.memory_stream_pair()
    )
    if kind == "tls":
        near = trio.SSLStream(
            near, client_ssl_context, server_hostname="localhost", https_compatible=True
        )
        far = trio.SSLStream(far, server_ssl_context, server_side=True, https_compatible=True)
    done = trio.Event()

    async def busy() -> None:
        while not done.is_set():
            await trio.lowlevel.checkpoint()

    async with open_pair(streams=(near, far)) as (client, server):
        one, other = (client, server) if closer == "client" else (server, client)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(busy)
            nursery.start_soon(other.wait_closed)
            await one.send("before")
            await one.close(4000)
            assert (await other.wait_closed()).code == 4000
            done.set()
        assert await other.receive() == "before"
    assert trio.current_time() == 0
    assert one.closed == Close(code=4000, initiator="local")


async def test_pongs_are_answered_and_pings_measured(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    """A ping is answered while somebody receives; ours returns the seconds until its pong."""
    async with opposite() as (ws, peer, _):
        nursery.start_soon(ws.wait_closed)
        await peer.send_ping(b"hello?")
        await peer.expect(PONG, b"hello?")
        took: list[float] = []

        async def ping() -> None:
            took.append(await ws.ping())

        nursery.start_soon(ping)
        frame = await peer.expect(PING)
        await trio.sleep(2)
        await peer.send_pong(frame.payload)
        await trio.testing.wait_all_tasks_blocked()
        assert took == [2]
        assert ws.latency == 2
        await peer.send_close()


@pytest.mark.row("D13")
@pytest.mark.parametrize("own", [False, True], ids=["owner", "application"])
async def test_a_fault_behind_messages_outranks_our_close(
    own: bool, autojump_clock: trio.testing.MockClock
) -> None:
    """Nothing behind the fault is parsed, so no answer to a Close 1000 would be seen: the peer is
    told 1002 at once, and no `close_timeout` is spent on waiting."""
    async with trio.open_nursery() as nursery, opposite() as (ws, peer, _):
        frames = [encode_frame(TEXT, b"x", masked=masked) for masked in (True, True, False)]
        await peer.send_raw(b"".join(frames))
        assert await ws.receive() == "x"

        async def client() -> None:
            await peer.expect_close(1002)
            await peer.aclose()

        nursery.start_soon(client)
        began = trio.current_time()
        if own:
            await ws.close(1000)
            assert trio.current_time() == began
    assert trio.current_time() == began
    assert ws.closed is not None
    assert ws.closed.code == 1002
