"""Peers that lie, flood, dribble or do not read: what it costs them, and that it costs us nothing.

Lives here: frames no good peer sends, and floods, on memory streams and the mock clock. Must never
live here: bytes counted by tracemalloc (test_memory_bounds), real sockets (test_raw_connection).
"""

from __future__ import annotations

import pytest
import trio
import trio.testing

from trio_ws import Close, ConnectionClosed, Limits, WebSocket, serve_stream
from trio_ws.testing import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    ChunkedStream,
    RawPeer,
    StallingStream,
    encode_frame,
    open_websocket,
)


async def closes_with(
    code: int, wire: bytes, *, client: bool = False, limits: Limits | None = None
) -> Close:
    """Feed `wire` to a WebSocket that receives; assert the Close frame the peer sees."""
    near, far = trio.testing.memory_stream_pair()
    peer = RawPeer(far, role="server" if client else "client")
    async with open_websocket(near, client=client, limits=limits) as ws:
        await peer.send_raw(wire)
        with pytest.raises(ConnectionClosed) as info:
            while True:
                await ws.receive()
        await peer.expect_close(code)
        assert info.value.close.code == code
        assert info.value.close.initiator == "local"
        await peer.aclose()
    return info.value.close


def masked(opcode: int, payload: bytes = b"", **lies: object) -> bytes:
    return encode_frame(opcode, payload, masked=True, **lies)  # type: ignore[arg-type]


PROTOCOL_ERRORS = {
    "unmasked": encode_frame(TEXT, b"x"),
    "unmasked control": encode_frame(PING, b"x"),
    "reserved opcode": masked(0x3),
    "reserved control opcode": masked(0xF),
    "rsv1": masked(TEXT, b"x", rsv=4),
    "rsv2": masked(TEXT, b"x", rsv=2),
    "rsv3": masked(BINARY, b"x", rsv=1),
    "rsv on control": masked(PING, rsv=4),
    "fragmented ping": masked(PING, b"x", fin=False),
    "long ping": masked(PING, b"x" * 126),
    "orphan continuation": masked(CONTINUATION, b"x"),
    "message in a message": masked(TEXT, b"a", fin=False) + masked(TEXT, b"b"),
    "length not in shortest form": masked(TEXT, b"x", length_size=8),
    "length with the top bit": masked(TEXT, b"x", declared_length=1 << 63, length_size=8),
    "one-byte close": masked(CLOSE, b"\x03"),
    "close code 1005": masked(CLOSE, b"\x03\xed"),
    "close code 999": masked(CLOSE, b"\x03\xe7"),
    "HTTP instead of frames": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
}


@pytest.mark.row("D13", "G1", "F5", "D8")
@pytest.mark.parametrize("wire", PROTOCOL_ERRORS.values(), ids=PROTOCOL_ERRORS.keys())
async def test_a_protocol_error_closes_with_1002(
    wire: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    """What RFC 6455 forbids a client to send is answered with Close 1002."""
    await closes_with(1002, wire)


@pytest.mark.row("G1")
async def test_a_server_must_not_mask(autojump_clock: trio.testing.MockClock) -> None:
    """The client's side of the masking rule (RFC 6455 section 5.1)."""
    await closes_with(1002, masked(TEXT, b"x"), client=True)


@pytest.mark.row("G2")
@pytest.mark.parametrize("text", [b"\xff", b"ok \xed\xa0\x80", b"\xc3", b"\xf4\x90\x80\x80"])
async def test_text_that_is_no_utf8_closes_with_1007(
    text: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    """Wrong bytes, surrogates, a code point cut off at the end, one above U+10FFFF."""
    await closes_with(1007, masked(TEXT, text))
    await closes_with(1007, masked(TEXT, b"fine", fin=False) + masked(CONTINUATION, text))


SMALL = Limits(max_message=100, max_fragments=5)

TOO_BIG = {
    "declared 2^62": masked(BINARY, b"", declared_length=1 << 62),
    "declared limit + 1": masked(BINARY, b"", declared_length=101),
    "text in bytes": masked(TEXT, "ü".encode() * 51),
    "fragments in total": masked(BINARY, b"x" * 60, fin=False) + masked(CONTINUATION, b"x" * 41),
    "a ping between": masked(TEXT, b"x" * 60, fin=False)
    + masked(PING)
    + masked(CONTINUATION, b"x" * 41, fin=False),
    "fragments": masked(TEXT, b"x", fin=False) + masked(CONTINUATION, b"x", fin=False) * 5,
    "empty fragments": masked(TEXT, fin=False) + masked(CONTINUATION, fin=False) * 100_000,
}


@pytest.mark.row("E1", "E2")
@pytest.mark.parametrize("wire", TOO_BIG.values(), ids=TOO_BIG.keys())
async def test_a_message_over_the_limit_closes_with_1009(
    wire: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    """Told by the header, before the payload is there, whole or in fragments, by bytes or by
    number."""
    await closes_with(1009, wire, limits=SMALL)


@pytest.mark.row("E1")
@pytest.mark.parametrize(
    "wire",
    [
        masked(BINARY, b"x" * 100),
        masked(TEXT, "ü".encode() * 50),
        masked(BINARY, b"x" * 50, fin=False) + masked(CONTINUATION, b"x" * 50),
        masked(BINARY, b"x" * 20, fin=False)
        + masked(CONTINUATION, b"x" * 20, fin=False) * 3
        + masked(CONTINUATION, b"x" * 20),
    ],
)
async def test_a_message_at_the_limit_is_delivered(wire: bytes) -> None:
    """100 bytes and 5 fragments pass, and again: the count starts afresh with each message."""
    near, far = trio.testing.memory_stream_pair()
    async with open_websocket(ChunkedStream(near, 7), limits=SMALL) as ws:
        peer = RawPeer(far)
        await peer.send_raw(wire * 3)
        for _ in range(3):
            message = await ws.receive()
            assert len(message.encode() if isinstance(message, str) else message) == 100
        await peer.send_close()


@pytest.mark.row("E4")
async def test_a_ping_flood_is_answered_with_the_newest_pong(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A peer that floods pings and does not read gets, once it reads, a handful of pongs, the last
    of them for its newest ping: nothing piled up."""
    near, far = trio.testing.memory_stream_pair()
    stalling = StallingStream(near)
    peer = RawPeer(far)
    async with open_websocket(stalling) as ws:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ws.wait_closed)
            for number in range(20_000):
                await peer.send_ping(number.to_bytes(4, "big"))
                if number % 500 == 0:
                    await trio.testing.wait_all_tasks_blocked()
            await trio.testing.wait_all_tasks_blocked()
            stalling.release()
            await trio.testing.wait_all_tasks_blocked()
            await peer.send_close(1000)
            await peer.expect_close(1000)
            await peer.aclose()
    pongs = [frame.payload for frame in peer.frames if frame.opcode == PONG]
    assert pongs[-1] == (19_999).to_bytes(4, "big")
    assert len(pongs) < 1000


@pytest.mark.row("E4")
async def test_an_echo_to_a_peer_that_never_reads_waits(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """`send` waits at `max_outbox`; the echo stops receiving with it."""
    limits = Limits(max_outbox=1000, ping_interval=None, ping_timeout=None)
    near, far = trio.testing.memory_stream_pair()
    stalling = StallingStream(near, after=0)
    peer = RawPeer(far)
    echoed = 0
    async with open_websocket(stalling, limits=limits) as ws:

        async def echo() -> None:
            nonlocal echoed
            async for message in ws:
                await ws.send(message)
                echoed += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(echo)
            for _ in range(500):
                await peer.send_message(b"x" * 96)
            await trio.sleep(3)
            assert 5 <= echoed <= 20
            stalling.release()
            for _ in range(500):
                assert await peer.receive_message() == b"x" * 96
            await peer.send_close(1000)


@pytest.mark.row("E5")
async def test_a_handler_that_never_reads_exerts_backpressure(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Nothing is read for a handler that only sends: the peer's writes stop being taken."""
    near, far = trio.testing.lockstep_stream_pair()
    peer = RawPeer(far)
    taken = 0

    async def handler(ws: WebSocket) -> None:
        await trio.sleep(3600)

    async def flood() -> None:
        nonlocal taken
        try:
            while True:
                await peer.send_message(b"x" * 10_000)
                taken += 10_000
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async with trio.open_nursery() as nursery:
        limits = Limits(ping_interval=None, ping_timeout=None)
        nursery.start_soon(lambda: serve_stream(handler, near, limits=limits))
        await peer.request()
        nursery.start_soon(flood)
        await trio.sleep(60)
        # What may be read ahead, and the read that filled it.
        assert taken <= limits.read_ahead + 2 * 64 * 1024
        nursery.cancel_scope.cancel()


@pytest.mark.row("E7")
async def test_pongs_nobody_asked_for_mean_nothing(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    """A flood of pongs changes nothing; a pong for the newer ping answers the older one too."""
    near, far = trio.testing.memory_stream_pair()
    peer = RawPeer(far)
    async with open_websocket(near) as ws:
        for number in range(1000):
            await peer.send_pong(b"unasked %d" % number)
        answered: list[int] = []

        async def ping(number: int) -> None:
            await ws.ping()
            answered.append(number)

        async with trio.open_nursery() as pingers:
            pingers.start_soon(ping, 1)
            first = await peer.expect(PING)
            pingers.start_soon(ping, 2)
            second = await peer.expect(PING)
            assert first.payload != second.payload
            assert answered == []
            await peer.send_pong(b"something else")
            await trio.testing.wait_all_tasks_blocked()
            assert answered == []
            await peer.send_pong(second.payload)
        assert sorted(answered) == [1, 2]
        await peer.send_close()


async def test_a_flood_of_messages_starves_nobody(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """While 5000 ready messages are received and answered, a task beside it gets its turns."""
    near, far = trio.testing.memory_stream_pair()
    peer = RawPeer(far)
    await peer.send_raw(masked(TEXT, b"x") * 5000)
    turns = 0
    async with open_websocket(near) as ws:
        async with trio.open_nursery() as nursery:

            async def beside() -> None:
                nonlocal turns
                while True:
                    await trio.lowlevel.checkpoint()
                    turns += 1

            nursery.start_soon(beside)
            for _ in range(5000):
                await ws.send(await ws.receive())
            nursery.cancel_scope.cancel()
        await peer.send_close()
    assert turns >= 50
