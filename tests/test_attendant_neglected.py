"""Neglected connections are looked after: pings answered, a Close seen, reading ahead bounded.

Lives here: handlers that do not receive, over memory streams, TLS and sockets, on the mock clock.
Must never live here: verdicts about the peer (test_attendant_dead_peers).
"""

from __future__ import annotations

import trio
import trio.testing

from trio_ws import ConnectionClosed, WebSocket
from trio_ws.testing import BINARY, CONTINUATION, PONG, WrappedStream, encode_frame

from .attendant_world import FRAME, Clock, Pair, Sleeper, served


async def test_pings_are_answered_while_the_handler_is_busy(
    pair: Pair, autojump_clock: Clock
) -> None:
    """Within a tick, whenever they come, also right after a message was received."""
    began: list[float] = []

    async def handler(ws: WebSocket) -> None:
        while True:
            await ws.receive()
            began.append(trio.current_time())
            await trio.sleep(30)

    async with served(handler, pair()) as peer:
        await peer.send_message("work")
        for number in range(12):
            await peer.send_ping(b"%d" % number)
            sent = trio.current_time()
            while (await peer.receive_frame()).payload != b"%d" % number:
                pass
            assert trio.current_time() - sent <= 1
            await trio.sleep(0.37 * number)
            if number % 3 == 0:
                await peer.send_message("more")
        assert began


async def test_a_close_is_answered_while_the_handler_sleeps(
    pair: Pair, autojump_clock: Clock
) -> None:
    """D17 with a busy handler beside it: echo and end of the stream within a tick."""
    handler = Sleeper()
    async with served(handler, pair()) as peer:
        await trio.sleep(10)
        await peer.send_close(1000, "bye")
        sent = trio.current_time()
        await peer.expect_close(1000)
        await peer.expect_eof()
        assert trio.current_time() - sent <= 1
        assert handler.closed.reason == "bye"


async def test_a_handler_that_only_sends_hears_of_a_close(
    pair: Pair, autojump_clock: Clock
) -> None:
    """By its next `send`, within a tick."""
    ended: list[tuple[float, int]] = []

    async def handler(ws: WebSocket) -> None:
        try:
            while True:
                await ws.send("tick")
                await trio.sleep(0.1)
        except ConnectionClosed as exc:
            ended.append((trio.current_time(), exc.close.code))
            raise

    async with served(handler, pair()) as peer:
        await trio.sleep(3)
        await peer.send_close(1001)
        sent = trio.current_time()
        await peer.expect_close(1001)
        await peer.expect_eof()
        await trio.sleep(0.2)
        assert [code for _, code in ended] == [1001]
        assert ended[0][0] - sent <= 1.2


async def test_a_ping_behind_hundreds_of_messages_is_answered_at_the_same_tick(
    pair: Pair, autojump_clock: Clock
) -> None:
    """What one read brought is parsed to its end, in several goes, and not a go a tick."""
    async with served(Sleeper(), pair()) as peer:
        await peer.send_raw(encode_frame(BINARY, b"x", masked=True) * 400)
        await peer.send_ping(b"behind")
        sent = trio.current_time()
        await peer.expect(PONG, b"behind")
        assert trio.current_time() - sent <= 2


async def test_the_background_driver_steps_aside(autojump_clock: Clock) -> None:
    """It reads for a busy handler; from the handler's second `receive` on, the handler's own task
    reads again."""
    readers: list[trio.lowlevel.Task] = []

    class Watched(WrappedStream):
        async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
            readers.append(trio.lowlevel.current_task())
            return await super().receive_some(max_bytes)

    async def handler(ws: WebSocket) -> None:
        await trio.sleep(5)
        del readers[1:]
        for _ in range(5):
            await ws.receive()
        me = trio.lowlevel.current_task()
        readers.append(me)
        assert readers[-4:] == [me] * 4
        await ws.send("done")

    near, far = trio.testing.memory_stream_pair()
    async with served(handler, (Watched(near), far)) as peer:
        await trio.sleep(3)
        assert readers
        for _ in range(5):
            await trio.sleep(1)
            await peer.send_message("x")
        assert await peer.receive_message() == "done"


async def test_reading_ahead_has_its_bound(autojump_clock: Clock) -> None:
    """The attendant stops at `read_ahead`, with whole messages and inside a large one."""
    for first in (FRAME, encode_frame(BINARY, b"x", fin=False, masked=True)):
        near, far = trio.testing.memory_stream_pair()
        watched = WrappedStream(near)
        part = encode_frame(CONTINUATION, b"x" * 60_000, fin=False, masked=True)
        async with served(Sleeper(), (watched, far), max_message=2**31, max_fragments=None) as peer:
            before = watched.received
            for _ in range(100):
                await peer.send_raw(FRAME * 60 if first is FRAME else first)
                first = first if first is FRAME else part  # noqa: PLW2901
            await trio.sleep(30)
            assert 60_000 <= watched.received - before <= 2 * 64 * 1024 + 60_000
