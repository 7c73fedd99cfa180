"""`Server.stats`: a frozen snapshot that adds up."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import pytest
import trio
import trio.testing

from trio_ws import Limits, Policy, Response, ServerStats, WebSocket
from trio_ws.testing import BINARY, TEXT, RawPeer, StallingStream, encode_frame, upgrade_head


def holds_together(stats: ServerStats) -> bool:
    return stats.accepted == stats.open + sum(stats.closed.values())


async def test_a_new_server_has_done_nothing(served: Any) -> None:
    await served.start()
    stats = served.server.stats()
    assert stats == ServerStats(
        open=0, handshaking=0, accepted=0, refused={}, closed={},
        messages_in=0, messages_out=0, bytes_in=0, bytes_out=0, outbox=0, slow=0,
        latency_min=None, latency_median=None, latency_p95=None, latency_max=None,
    )  # fmt: skip
    with pytest.raises(dataclasses.FrozenInstanceError):
        stats.open = 1
    with pytest.raises(TypeError):
        stats.refused["head"] = 1
    served.scope.cancel()


async def test_handshakes_are_counted_by_what_became_of_them(
    served: Any, autojump_clock: trio.testing.MockClock
) -> None:
    """Accepted, refused by row; a page and a peer that goes without a word are neither."""

    async def page(request: object) -> Response:
        return Response(200)

    def no_bots(request: object) -> Response | None:
        return None

    await served.start(http=page, policy=Policy(checks=[no_bots]))
    heads = [
        upgrade_head(headers=[(b"Origin", b"https://evil.example")]),
        upgrade_head(headers=[(b"Origin", b"https://evil.example")]),
        upgrade_head(headers=[(b"Content-Length", b"5")]),
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"",
    ]
    for head in heads:
        stream = served.listener.connect()
        await stream.send_all(head)
        await stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
    await served.peers(1)
    silent = served.listener.connect()
    await trio.testing.wait_all_tasks_blocked()
    stats = served.server.stats()
    assert stats.refused == {"origins": 2, "body": 1, "head": 1}
    assert (stats.accepted, stats.open, stats.handshaking) == (1, 1, 1)
    assert holds_together(stats)
    await silent.aclose()
    served.scope.cancel()


async def test_messages_and_bytes_are_those_of_open_and_of_ended_connections(
    served: Any, autojump_clock: trio.testing.MockClock
) -> None:
    """Whole and streamed messages, and the frames glued to a request: exactly what was on the
    wire, before and after the connections have ended."""

    async def handler(ws: WebSocket) -> None:
        async for message in ws:
            await ws.send(message)
            async with ws.message_writer("binary") as out:
                await out.send(b"abc")

    await served.start(handler)
    glued = RawPeer(served.listener.connect())
    frame = encode_frame(TEXT, b"hello", masked=True)
    await glued.send_raw(upgrade_head() + frame)
    await glued.receive_head()
    peers = [glued, *await served.peers(1)]
    await peers[1].send_message(b"hello")
    for peer in peers:
        assert await peer.receive_message() in ("hello", b"hello")
        assert await peer.receive_message() == b"abc"
    stats = served.server.stats()
    assert (stats.open, stats.messages_in, stats.messages_out) == (2, 2, 4)
    sent = sum(
        len(encode_frame(opcode, payload, fin=fin))
        for opcode, payload, fin in ((BINARY, b"hello", True), (BINARY, b"abc", False))
    ) + len(encode_frame(0, b""))
    assert (stats.bytes_in, stats.bytes_out) == (2 * len(frame), 2 * sent)
    for peer in peers:
        await peer.send_close(4001)
        await peer.expect_close(4001)
        await peer.expect_eof()
    await trio.testing.wait_all_tasks_blocked()
    stats = served.server.stats()
    close = len(encode_frame(8, b"12"))
    assert stats.closed == {4001: 2}
    assert (stats.open, stats.messages_in, stats.messages_out) == (0, 2, 4)
    assert (stats.bytes_in, stats.bytes_out) == (2 * (len(frame) + 4 + close), 2 * (sent + close))
    assert holds_together(stats)
    served.scope.cancel()


async def test_ends_are_counted_by_code_and_the_log_is_no_part_of_it(
    served: Any, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)

    async def handler(ws: WebSocket) -> None:
        if await ws.receive() == "crash":
            raise RuntimeError("a bug")

    await served.start(handler)
    first, second, third = await served.peers(3)
    for peer, word, code in ((first, "crash", 1011), (second, "return", 1000)):
        await peer.send_message(word)
        await peer.expect_close(code)
        await peer.send_close(code)
    await third.aclose()
    await trio.testing.wait_all_tasks_blocked()
    assert served.server.stats().closed == {1011: 1, 1000: 1, 1006: 1}
    assert holds_together(served.server.stats())
    served.scope.cancel()


@pytest.mark.row("E4")
async def test_a_peer_that_reads_nothing_is_seen_in_the_outbox_then_counted_as_slow(
    served: Any, autojump_clock: trio.testing.MockClock
) -> None:
    """One that only falls silent is lost, too, and not slow."""

    async def handler(ws: WebSocket) -> None:
        if ws.request.path == "/talk":
            while True:
                await ws.send(b"x" * 1000)
        await ws.receive()

    await served.start(handler, limits=Limits(max_outbox=10_000))
    ours, theirs = trio.testing.memory_stream_pair()
    served.listener.put(StallingStream(theirs, after=200))
    await ours.send_all(upgrade_head("/talk"))
    (silent,) = await served.peers(1)
    await trio.sleep(5)
    stats = served.server.stats()
    assert 10_000 <= stats.outbox <= 12_000
    assert (stats.open, stats.slow) == (2, 0)
    await trio.sleep(100)
    stats = served.server.stats()
    assert (stats.open, stats.slow, stats.outbox) == (0, 1, 0)
    assert stats.closed == {1006: 2}
    await silent.aclose()
    served.scope.cancel()


async def test_latencies_are_those_of_the_open_connections(
    served: Any, autojump_clock: trio.testing.MockClock
) -> None:
    """Of five, pinged over paths of one to five seconds."""

    async def handler(ws: WebSocket) -> None:
        await ws.ping()
        await ws.receive()

    async def pong(peer: RawPeer, after: float) -> None:
        frame = await peer.receive_frame()
        await trio.sleep(after)
        await peer.send_pong(frame.payload)

    await served.start(handler)
    peers = await served.peers(5)
    async with trio.open_nursery() as nursery:
        for number, peer in enumerate(peers, 1):
            nursery.start_soon(pong, peer, number)
    await trio.testing.wait_all_tasks_blocked()
    stats = served.server.stats()
    found = (stats.latency_min, stats.latency_median, stats.latency_p95, stats.latency_max)
    assert found == pytest.approx((1, 3, 5, 5))
    served.scope.cancel()
