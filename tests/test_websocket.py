"""`WebSocket`: its facts, what it refuses, pings, and closing, over memory and the mock clock.

Lives here: the calls one by one, in good order. Must never live here: cancellation sweeps
(test_cancellation), close races (test_close_races), hostile peers, streaming.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from trio_ws import (
    Close,
    ConnectionClosed,
    ConnectionLost,
    Limits,
    UpgradeRequest,
    WebSocket,
)
from trio_ws.testing import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    DelayedStream,
    RawPeer,
    WrappedStream,
    open_pair,
    open_websocket,
    request,
)

CALLS: dict[str, Callable[[WebSocket], Awaitable[object]]] = {
    "send": lambda ws: ws.send("x"),
    "receive": WebSocket.receive,
    "ping": WebSocket.ping,
}


# -- facts ---------------------------------------------------------------------------------------


async def test_a_websocket_is_a_trio_channel() -> None:
    """Generic trio code takes it for what it is."""
    async with open_pair() as (client, server):
        assert isinstance(client, trio.abc.Channel)
        assert isinstance(server, trio.abc.Channel)


async def test_the_facts_are_those_of_the_handshake() -> None:
    """Request, addresses and context are handed through; nothing has ended or been measured."""
    context = object()
    asked = request("/chat?room=1", peer_address=("10.0.0.1", 5), local_address=("10.0.0.2", 80))
    async with open_pair(request=asked, context=context) as (client, server):
        assert server.request is asked
        assert server.context is context
        assert client.context is None
        assert server.peer_address == ("10.0.0.1", 5)
        assert server.local_address == ("10.0.0.2", 80)
        assert server.subprotocol is None
        assert server.closed is None
        assert server.latency is None
        assert server.id != client.id


@pytest.mark.parametrize("name", ["request", "closed", "id", "latency", "context", "subprotocol"])
async def test_the_facts_cannot_be_set(name: str) -> None:
    """They are facts, not settings."""
    async with open_pair() as (client, _):
        with pytest.raises(AttributeError):
            setattr(client, name, 1)


@pytest.mark.row("A19")
async def test_the_repr_is_one_escaped_line() -> None:
    """Number, path and state; hostile paths and reasons cannot forge log lines."""
    asked: UpgradeRequest = request("/%0d%0a%1b[2J\u00e9?token=secret")
    async with open_pair(request=asked) as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(server.wait_closed)
        assert re.fullmatch(r"<WebSocket \d+ '.*' open>", repr(server))
        await client.close(4000, "\x1b[2J\n")
        await server.wait_closed()
        for told in (repr(client), repr(server)):
            assert told.isascii()
            assert told.isprintable()
            assert "secret" not in told
            assert "4000" in told


# -- messages ------------------------------------------------------------------------------------


async def test_messages_keep_their_type_and_order() -> None:
    """Text arrives as str, everything bytes-like as bytes, both ways."""
    messages: list[str | bytes | bytearray | memoryview] = ["", "é\U0001f44b", b"", b"\x00\xff"]
    messages += [bytearray(b"a"), memoryview(b"xbx")[1:2]]
    expected = ["", "é\U0001f44b", b"", b"\x00\xff", b"a", b"b"]
    async with open_pair() as (client, server):
        for here, there in ((client, server), (server, client)):
            for message in messages:
                await here.send(message)
            received = [await there.receive() for _ in messages]
            assert received == expected
            assert [type(each) for each in received] == [type(each) for each in expected]


@pytest.mark.parametrize("value", [None, 5, ["x"], {"json": 1}, object()])
async def test_what_is_no_message_is_a_type_error(value: object) -> None:
    """Refused before anything is done; the connection is as it was."""
    async with open_pair() as (client, server):
        with pytest.raises(TypeError, match=type(value).__name__):
            await client.send(value)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        await client.send("fine")
        assert await server.receive() == "fine"


async def test_text_that_utf8_cannot_carry_is_a_value_error() -> None:
    """A lone surrogate never reaches the peer; the connection is as it was."""
    async with open_pair() as (client, server):
        with pytest.raises(ValueError, match="surrogate"):
            await client.send("\ud800")
        await client.send("fine")
        assert await server.receive() == "fine"


async def test_two_receivers_at_once_are_refused() -> None:
    """The second one gets BusyResourceError at once, the first one its message."""
    async with open_pair() as (client, server), trio.open_nursery() as nursery:
        got: list[str | bytes] = []

        async def receiver() -> None:
            got.append(await server.receive())

        nursery.start_soon(receiver)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await server.receive()
        await client.send("for the first")
        await trio.testing.wait_all_tasks_blocked()
        assert got == ["for the first"]
        await client.send("next")
        assert await server.receive() == "next"


@pytest.mark.parametrize("name", CALLS)
async def test_every_call_is_a_cancellation_point(name: str) -> None:
    """Also where it need not wait: a busy task can be stopped, and nothing has happened then."""
    async with open_pair() as (client, server):
        await server.send("waiting")
        if name != "receive":
            assert await client.receive() == "waiting"
        with trio.CancelScope() as scope:
            scope.cancel()
            await CALLS[name](client)
        assert scope.cancelled_caught
        await client.send("first")
        assert await server.receive() == "first"
        if name == "receive":
            assert await client.receive() == "waiting"


# -- pings ---------------------------------------------------------------------------------------


async def test_a_ping_measures_its_round_trip(autojump_clock: trio.testing.MockClock) -> None:
    """Seconds from its last byte to its pong, on the connection's clock; `latency` keeps it."""
    near, far = trio.testing.memory_stream_pair()
    slow = DelayedStream(near, receive=0.25)
    async with open_pair(streams=(slow, far)) as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(server.wait_closed)
        assert await client.ping() == pytest.approx(0.25)
        assert client.latency == pytest.approx(0.25)
        assert server.latency is None
        await client.close()


@pytest.mark.row("C7")
async def test_many_pings_at_once_are_all_answered() -> None:
    """Each caller has a ping of its own; a pong wakes its caller and every older one."""
    async with open_pair() as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(server.wait_closed)
        done = []

        async def pinger() -> None:
            done.append(await client.ping())

        async with trio.open_nursery() as pingers:
            for _ in range(20):
                pingers.start_soon(pinger)
        assert len(done) == 20
        await client.close()


@pytest.mark.row("E7")
async def test_pongs_nobody_asked_for_mean_nothing() -> None:
    """Unsolicited ones, ones with a foreign payload and repeated ones answer no ping."""
    near, far = trio.testing.memory_stream_pair()
    async with RawPeer(far) as peer, open_websocket(near) as ws, trio.open_nursery() as nursery:
        for _ in range(200):
            await peer.send_pong(b"unasked")
        nursery.start_soon(ws.ping)
        ping = await peer.expect(PING)
        await peer.send_pong(b"")
        await peer.send_pong(ping.payload + b"?")
        await trio.testing.wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 1
        assert ws.latency is None
        await peer.send_pong(ping.payload)
        await trio.testing.wait_all_tasks_blocked()
        assert not nursery.child_tasks
        assert ws.latency is not None
        await peer.send_pong(ping.payload)
        await peer.send_message("still here")
        assert await ws.receive() == "still here"
        await peer.send_close()


@pytest.mark.row("E7")
async def test_a_pong_answers_every_older_ping() -> None:
    """A peer may answer only the newest one (RFC 6455 section 5.5.3)."""
    near, far = trio.testing.memory_stream_pair()
    async with RawPeer(far) as peer, open_websocket(near) as ws:
        async with trio.open_nursery() as nursery:
            payloads = []
            for _ in range(3):
                nursery.start_soon(ws.ping)
                payloads.append((await peer.expect(PING)).payload)
            assert len(set(payloads)) == 3
            await peer.send_pong(payloads[1])
            await trio.testing.wait_all_tasks_blocked()
            assert len(nursery.child_tasks) == 1
            await peer.send_pong(payloads[2])
        await peer.send_close()


async def test_a_ping_is_answered_with_its_payload() -> None:
    """While we wait for anything; the answer is the ping's own payload (section 5.5.3)."""
    near, far = trio.testing.memory_stream_pair()
    async with RawPeer(far) as peer, open_websocket(near) as ws, trio.open_nursery() as nursery:
        nursery.start_soon(ws.wait_closed)
        for payload in (b"", b"x", bytes(125)):
            await peer.send_ping(payload)
            await peer.expect(PONG, payload)
        await peer.send_close()


@pytest.mark.row("D6", "G3")
@pytest.mark.parametrize("glued", [False, True])
async def test_a_ping_before_a_close_does_no_harm(glued: bool) -> None:
    """In one read with the Close or in one of its own: a pong, then the echo of the Close."""
    near, far = trio.testing.memory_stream_pair()
    async with RawPeer(far) as peer, open_websocket(near) as ws, trio.open_nursery() as nursery:

        async def reader() -> None:
            with pytest.raises(trio.EndOfChannel):
                await ws.receive()

        nursery.start_soon(reader)
        await trio.testing.wait_all_tasks_blocked()
        await peer.send_ping(b"last")
        if not glued:
            await trio.testing.wait_all_tasks_blocked()
        await peer.send_close(1000, "bye")
        assert [frame.opcode for frame in await peer.read_to_end()] == [PONG, CLOSE]
        assert ws.closed == Close(code=1000, reason="bye", initiator="peer")


# -- closing -------------------------------------------------------------------------------------


@pytest.mark.row("D9")
@pytest.mark.parametrize(
    ("code", "reason"),
    [(999, ""), (1005, ""), (70000, ""), (1000, "x" * 124), (1000, "\ud800"), (1000, b"no")],
)
async def test_a_close_that_cannot_be_sent_changes_nothing(code: int, reason: object) -> None:
    """ValueError, and the connection is open as before."""
    async with open_pair() as (client, server):
        with pytest.raises(ValueError, match="close"):
            await client.close(code, reason)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        assert client.closed is None
        await client.send("still open")
        assert await server.receive() == "still open"


@pytest.mark.row("D17")
async def test_both_sides_tell_the_same_story(autojump_clock: trio.testing.MockClock) -> None:
    """Code and reason are the same; who began differs by the point of view. It takes no time."""
    async with open_pair() as (client, server), trio.open_nursery() as nursery:
        start = trio.current_time()
        nursery.start_soon(server.wait_closed)
        await client.close(3001, "done")
        assert await server.wait_closed() == Close(code=3001, reason="done", initiator="peer")
        assert client.closed == Close(code=3001, reason="done", initiator="local")
        assert await client.wait_closed() is client.closed
        assert trio.current_time() == start


async def test_closing_again_changes_nothing() -> None:
    """`aclose` is idempotent, after our own close as after the peer's; the first code stands."""
    async with open_pair() as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(server.wait_closed)
        await client.close(3001, "first")
        for _ in range(2):
            await client.aclose()
            await client.close(3002, "second")
            await server.aclose()
        assert client.closed == Close(code=3001, reason="first", initiator="local")
        assert server.closed == Close(code=3001, reason="first", initiator="peer")


async def test_closing_at_once_from_many_tasks_sends_one_close() -> None:
    """Every caller returns when the socket is gone; one Close frame was sent."""
    near, far = trio.testing.memory_stream_pair()
    async with RawPeer(far) as peer, open_websocket(near) as ws:
        async with trio.open_nursery() as nursery:
            for code in range(3000, 3010):
                nursery.start_soon(ws.close, code)
            await peer.expect(CLOSE)
            await peer.send_close(1000)
            await peer.expect_eof()


@pytest.mark.parametrize("name", CALLS)
async def test_after_our_own_close_every_call_is_refused(name: str) -> None:
    """ClosedResourceError, as any closed trio resource, with the story in it."""
    async with open_pair() as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(server.wait_closed)
        await client.aclose()
        with pytest.raises(trio.ClosedResourceError) as caught:
            await CALLS[name](client)
        assert isinstance(caught.value, ConnectionClosed)
        assert caught.value.close is client.closed


@pytest.mark.parametrize("name", CALLS)
async def test_after_the_peers_close_calls_end_as_trio_code_expects(name: str) -> None:
    """EndOfChannel from `receive`, BrokenResourceError from `send` and `ping`."""
    async with open_pair() as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(client.aclose)
        await server.wait_closed()
        kind = trio.EndOfChannel if name == "receive" else trio.BrokenResourceError
        for _ in range(2):
            with pytest.raises(kind) as caught:
                await CALLS[name](server)
            assert isinstance(caught.value, ConnectionClosed)
            assert caught.value.close is server.closed


async def test_each_raise_is_a_new_exception() -> None:
    """Two tasks that hear of the same end do not share a traceback."""
    async with open_pair() as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(client.aclose)
        caught = []
        for _ in range(2):
            with pytest.raises(ConnectionClosed) as info:
                await server.receive()
            caught.append(info.value)
        assert caught[0] is not caught[1]
        assert caught[0].close is caught[1].close


@pytest.mark.parametrize("code", [1000, 1001, None])
async def test_a_loop_ends_quietly_in_good_order(code: int | None) -> None:
    """`async for` gets what was sent before the Close, then ends."""
    near, far = trio.testing.memory_stream_pair()
    async with RawPeer(far) as peer, open_websocket(near) as ws:
        await peer.send_message("one")
        await peer.send_message(b"two")
        await peer.send_close(code)
        assert [message async for message in ws] == ["one", b"two"]
        assert ws.closed is not None
        assert ws.closed.code == (1005 if code is None else code)


@pytest.mark.parametrize("code", [1002, 1008, 1011, 4000])
async def test_a_loop_ends_loudly_otherwise(code: int) -> None:
    """Any other code raises out of `async for`, behind what was sent before it."""
    near, far = trio.testing.memory_stream_pair()
    async with RawPeer(far) as peer, open_websocket(near) as ws:
        await peer.send_message("one")
        await peer.send_close(code, "why")
        got = []
        with pytest.raises(trio.BrokenResourceError) as caught:
            async for message in ws:
                got.append(message)  # noqa: PERF401  the loop raises
        assert got == ["one"]
        assert isinstance(caught.value, ConnectionClosed)
        assert caught.value.close == Close(code=code, reason="why", initiator="peer")


@pytest.mark.row("D10")
async def test_an_end_without_a_close_is_1006() -> None:
    """EOF is `ConnectionLost`, never good order, in `receive` and in `wait_closed`."""
    near, far = trio.testing.memory_stream_pair()
    async with RawPeer(far) as peer, open_websocket(near) as ws:
        await peer.send_message("one")
        await peer.send_eof()
        assert await ws.receive() == "one"
        with pytest.raises(ConnectionLost):
            await ws.receive()
        assert await ws.wait_closed() == Close(code=1006, initiator="nobody")


@pytest.mark.row("D5")
async def test_a_peer_that_never_answers_costs_close_timeout(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Exactly that; then 1006, and the stream is closed."""
    near, far = trio.testing.memory_stream_pair()
    async with RawPeer(far) as peer, open_websocket(near, limits=Limits(close_timeout=3)) as ws:
        start = trio.current_time()
        await ws.close()
        assert trio.current_time() == start + 3
        assert ws.closed == Close(code=1006, initiator="nobody")
        with pytest.raises(trio.ClosedResourceError) as caught:
            await ws.receive()
        assert isinstance(caught.value, ConnectionLost)
        assert [frame.opcode for frame in await peer.read_to_end()] == [CLOSE]


async def test_wait_closed_takes_no_message() -> None:
    """It reads ahead and leaves what it reads to `receive`, before and after the end."""
    near, far = trio.testing.memory_stream_pair()
    async with RawPeer(far) as peer, open_websocket(near) as ws, trio.open_nursery() as nursery:
        nursery.start_soon(ws.wait_closed)
        await peer.send_message("one")
        await trio.testing.wait_all_tasks_blocked()
        assert await ws.receive() == "one"
        await peer.send_message("two")
        await peer.send_close()
        assert (await ws.wait_closed()).code == 1000
        assert await ws.receive() == "two"
        with pytest.raises(trio.EndOfChannel):
            await ws.receive()


@pytest.mark.row("E5")
async def test_a_flood_of_empty_messages_is_not_read_ahead_without_bound() -> None:
    """Messages of no bytes fill `read_ahead`, too: the rest stays where it costs the peer."""
    near, far = trio.testing.memory_stream_pair()
    counted = WrappedStream(near)
    async with RawPeer(far) as peer, open_websocket(counted) as ws, trio.open_nursery() as nursery:
        nursery.start_soon(ws.wait_closed)
        for _ in range(20):
            for _ in range(500):
                await peer.send_message("")
            await trio.testing.wait_all_tasks_blocked()
        assert counted.received <= 4 * 500 * 6  # of twenty lumps of 500 messages of 6 bytes
        for _ in range(10_000):
            assert await ws.receive() == ""
        await peer.send_close()


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
async def test_the_frame_on_the_wire_is_one_and_unmasked(opcode: int) -> None:
    """A server sends one whole frame a message (section 5.1)."""
    near, far = trio.testing.memory_stream_pair()
    async with RawPeer(far) as peer, open_websocket(near) as ws:
        message: str | bytes = "x" * 70_000 if opcode == TEXT else b"x" * 70_000
        await ws.send(message)
        frame = await peer.expect(opcode, b"x" * 70_000)
        assert frame.fin
        await peer.send_close()
