"""`reconnect`: a ``with`` that owns and a loop that is plain; when it tries again, and when not.

Real sockets on the loopback, whose bytes arrive at once, and the mock clock.
"""

from __future__ import annotations

import errno
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from itertools import chain, pairwise, repeat
from pathlib import Path

import pytest
import trio
import trio.testing

from trio_ws import (
    Close,
    ConnectionClosed,
    ConnectionLost,
    HandshakeError,
    Limits,
    Rejected,
    Response,
    WebSocket,
    connect,
    reconnect,
    worth_retrying,
)
from trio_ws.testing import RawPeer, Target, cancel_at_every_step


class Mine(Exception):
    pass


@pytest.fixture
def clock(mock_clock: trio.testing.MockClock) -> trio.testing.MockClock:
    """Jumps after 5 ms without events: a busy kernel may be late with what was sent."""
    mock_clock.autojump_threshold = 0.005
    return mock_clock


# -- a server that does what it is told ----------------------------------------------------------

Script = Callable[[RawPeer, "Feed"], Awaitable[None]]


class Feed:
    """Plays one script per connection, in order. Notes when each came and how it was closed."""

    def __init__(self, scripts: Iterable[Script]) -> None:
        self.scripts = iter(scripts)
        self.url = ""
        self.came: list[float] = []
        self.codes: list[int | None] = []
        self.gone = 0

    @property
    def gaps(self) -> list[float]:
        return [later - earlier for earlier, later in pairwise(self.came)]

    async def serve_one(self, stream: trio.SocketStream) -> None:
        self.came.append(trio.current_time())
        try:
            await next(self.scripts)(RawPeer(stream, role="server"), self)
        except (AssertionError, trio.EndOfChannel, trio.BrokenResourceError):
            self.codes.append(None)
        finally:
            self.gone += 1
            await trio.aclose_forcefully(stream)


@asynccontextmanager
async def feed(*scripts: Script, then: Script | None = None) -> AsyncIterator[Feed]:
    there = Feed(chain(scripts, repeat(then or converse)))
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        there.url = f"ws://127.0.0.1:{listeners[0].socket.getsockname()[1]}/feed"
        nursery.start_soon(trio.serve_listeners, there.serve_one, listeners)
        yield there
        nursery.cancel_scope.cancel()


async def converse(server: RawPeer, there: Feed) -> None:
    """Accept, and answer the client's Close whenever it comes."""
    await server.accept()
    frame = await server.expect_close()
    there.codes.append(frame.close_code)
    await server.send_close(frame.close_code)


async def hang_up(server: RawPeer, there: Feed) -> None:
    await server.receive_head()


async def close_at_once(server: RawPeer, there: Feed) -> None:
    await server.accept()
    await server.send_close(1012, "restart")
    await server.expect_close(1012)


async def vanish(server: RawPeer, there: Feed) -> None:
    await server.accept()


def live_for(seconds: float) -> Script:
    async def script(server: RawPeer, there: Feed) -> None:
        await server.accept()
        await trio.sleep(seconds)
        await server.send_close(1001)
        await server.expect_close(1001)

    return script


def refuse(status: int, *headers: str) -> Script:
    async def script(server: RawPeer, there: Feed) -> None:
        await server.receive_head()
        lines = [f"HTTP/1.1 {status} No", "Content-Length: 0", *headers, "", ""]
        await server.send_raw("\r\n".join(lines).encode())

    return script


# -- the loop ------------------------------------------------------------------------------------


async def test_a_lost_connection_is_followed_by_another(clock: trio.testing.MockClock) -> None:
    """However it was lost; each is a WebSocket of its own."""
    seen: list[WebSocket] = []
    async with feed(vanish, close_at_once, hang_up, refuse(503)) as there:
        async with reconnect(there.url, proxy=None) as connections:
            async for ws in connections:
                seen.append(ws)
                if len(seen) == 3:
                    break
                with pytest.raises(ConnectionClosed):
                    while True:
                        await ws.receive()
    assert len({id(ws) for ws in seen}) == 3
    assert [ws.closed and ws.closed.code for ws in seen] == [1006, 1012, 1000]
    assert len(there.came) == 5


async def test_the_first_connection_is_made_at_once(clock: trio.testing.MockClock) -> None:
    async with feed() as there:
        started = trio.current_time()
        async with reconnect(there.url, proxy=None) as connections:
            async for _ in connections:
                break
        assert there.came == [started]


async def test_a_body_that_ends_closes_its_connection_before_the_next_is_opened(
    clock: trio.testing.MockClock,
) -> None:
    async with feed() as there:
        async with reconnect(there.url, proxy=None) as connections:
            number = 0
            async for ws in connections:
                number += 1
                assert ws.closed is None
                assert there.codes == [1000] * (number - 1)
                if number == 4:
                    break
        assert there.codes == [1000] * 4


# -- leaving it ----------------------------------------------------------------------------------


@pytest.mark.row("H6")
async def test_break_closes_the_current_connection_before_the_with_returns(
    clock: trio.testing.MockClock,
) -> None:
    async with feed() as there:
        async with reconnect(there.url, proxy=None) as connections:
            async for current in connections:
                ws = current
                break
            assert ws.closed is None, "it may still be used up to the end of the with"
        assert ws.closed == Close(code=1000, initiator="local")
        assert there.codes == [1000]


@pytest.mark.row("H6")
@pytest.mark.parametrize(
    "raised",
    [Mine(), ExceptionGroup("several", [Mine(), Mine()]), StopAsyncIteration(), RuntimeError("x")],
    ids=lambda exc: type(exc).__name__,
)
async def test_an_exception_closes_the_current_connection_and_comes_out_as_it_is(
    raised: Exception, clock: trio.testing.MockClock
) -> None:
    async with feed(refuse(503)) as there:
        with pytest.raises(type(raised)) as caught:
            async with reconnect(there.url, proxy=None) as connections:
                async for current in connections:
                    ws = current
                    raise raised
        assert caught.value is raised
        assert raised.__cause__ is None
        assert raised.__context__ is None
        assert ws.closed is not None
        assert there.codes == [1011]


@pytest.mark.row("H6")
async def test_cancellation_closes_the_current_connection(clock: trio.testing.MockClock) -> None:
    async with feed() as there:
        with trio.move_on_after(3) as scope:
            async with reconnect(there.url, proxy=None) as connections:
                async for ws in connections:
                    await ws.receive()
        assert scope.cancelled_caught
        assert there.codes == [1001]


@pytest.mark.row("H6")
async def test_cancellation_while_it_waits_to_try_again(clock: trio.testing.MockClock) -> None:
    async with feed(then=refuse(503)) as there:
        with trio.move_on_after(300) as scope:
            async with reconnect(there.url, proxy=None) as connections:
                async for _ in connections:
                    raise AssertionError("it opened")
        assert scope.cancelled_caught
        assert there.gone == len(there.came)


@pytest.mark.row("H6")
async def test_the_end_of_a_connection_that_the_body_does_not_catch_comes_out(
    clock: trio.testing.MockClock,
) -> None:
    async with feed(vanish) as there:
        with pytest.raises(ConnectionLost) as caught:
            async with reconnect(there.url, proxy=None) as connections:
                async for ws in connections:
                    await ws.receive()
        assert caught.value.close is ws.closed


async def test_after_the_with_there_are_no_more_connections(clock: trio.testing.MockClock) -> None:
    async with feed() as there:
        async with reconnect(there.url, proxy=None) as connections:
            pass
        with pytest.raises(RuntimeError, match="has ended"):
            await anext(connections)
        assert there.came == []


# -- when ----------------------------------------------------------------------------------------


async def times_until(there: Feed, number: int, seconds: float = 5000) -> None:
    """Reconnect until so many connections have come."""
    with trio.move_on_after(seconds):
        async with reconnect(there.url, proxy=None) as connections:
            async for ws in connections:
                await ws.wait_closed()
                if len(there.came) >= number:
                    break


async def test_delays_are_random_below_a_bound_that_doubles_up_to_a_minute(
    clock: trio.testing.MockClock,
) -> None:
    async with feed(*[refuse(503)] * 40, then=close_at_once) as there:
        await times_until(there, 40)
        assert len(there.gaps) >= 39
        for number, gap in enumerate(there.gaps):
            assert 0 <= gap <= min(60, 2**number) + 0.001
        late = there.gaps[8:]
        assert len(set(late)) > 20, "they are random"
        assert max(late) > 20, "and do grow"


async def test_a_server_that_accepts_and_closes_is_not_asked_in_a_tight_loop(
    clock: trio.testing.MockClock,
) -> None:
    async with feed(then=close_at_once) as there:
        await times_until(there, 20)
        assert sum(there.gaps[8:]) > 30


async def test_a_stable_connection_starts_the_delays_again(clock: trio.testing.MockClock) -> None:
    failures = [refuse(503)] * 10
    async with feed(*failures, live_for(29), live_for(31), vanish) as there:
        await times_until(there, 13)
        assert there.gaps[11] - 31 <= 1 + 0.001


@pytest.mark.parametrize(
    ("value", "least", "most"),
    [("7", 7, 8), ("0", 0, 1), ("100000", 60, 61), ("-5", 0, 1), ("soon", 0, 1), ("\xb2", 0, 1)],
)
async def test_retry_after_is_respected_within_reason(
    value: str, least: float, most: float, clock: trio.testing.MockClock
) -> None:
    """And with the jitter on top of it: it was said to everybody."""
    async with feed(refuse(503, f"Retry-After: {value}"), close_at_once) as there:
        await times_until(there, 2)
        assert least <= there.gaps[0] <= most + 0.001


# -- whether -------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 302, 400, 401, 403, 404, 426, 501])
async def test_a_refusal_that_will_not_change_ends_the_loop(
    status: int, clock: trio.testing.MockClock
) -> None:
    async with feed(then=refuse(status)) as there:
        with pytest.raises(Rejected) as caught:
            async with reconnect(there.url, proxy=None) as connections:
                async for _ in connections:
                    raise AssertionError("it opened")
        assert caught.value.response.status == status
        assert len(there.came) == 1


async def test_the_caller_may_decide_what_is_tried_again(clock: trio.testing.MockClock) -> None:
    asked: list[HandshakeError] = []

    def retry(exc: HandshakeError) -> bool:
        asked.append(exc)
        return len(asked) < 3

    async with feed(refuse(404), hang_up, then=refuse(403)) as there:
        with pytest.raises(Rejected) as caught:
            async with reconnect(there.url, proxy=None, retry=retry) as connections:
                async for _ in connections:
                    raise AssertionError("it opened")
    assert caught.value is asked[2]
    assert [type(exc) for exc in asked] == [Rejected, HandshakeError, Rejected]


async def test_a_predicate_that_fails_ends_the_loop_with_its_error(
    clock: trio.testing.MockClock,
) -> None:
    def retry(exc: HandshakeError) -> bool:
        raise Mine

    async with feed(refuse(503)) as there:
        with pytest.raises(Mine):
            async with reconnect(there.url, proxy=None, retry=retry) as connections:
                async for _ in connections:
                    raise AssertionError("it opened")


def caused(cause: BaseException) -> HandshakeError:
    error = HandshakeError()
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "worth"),
    [
        (HandshakeError("the server's response is not HTTP"), True),
        (caused(socket.gaierror(socket.EAI_AGAIN, "later")), True),
        (caused(socket.gaierror(socket.EAI_NONAME, "unknown")), True),
        (caused(OSError(errno.ECONNREFUSED, "refused")), True),
        (caused(trio.TooSlowError()), True),
        (caused(ssl.SSLError("handshake failure")), True),
        (caused(ssl.SSLCertVerificationError("self-signed")), False),
        (caused(ImportError("python_socks")), False),
        *[(Rejected(Response(status)), True) for status in (408, 425, 429, 500, 502, 503, 504)],
        *[(Rejected(Response(status)), False) for status in (200, 302, 401, 403, 404, 410, 505)],
    ],
)
def test_what_is_tried_again_by_default(error: HandshakeError, worth: bool) -> None:
    assert worth_retrying(error) is worth


# -- what is left --------------------------------------------------------------------------------


async def test_many_connections_leave_no_task_behind(clock: trio.testing.MockClock) -> None:
    """Each is looked after, by one attendant for all of them."""
    async with feed(then=close_at_once) as there:
        counts: list[int] = []
        async with reconnect(there.url, proxy=None) as connections:
            async for ws in connections:
                await ws.wait_closed()
                counts.append(trio.lowlevel.current_statistics().tasks_living)
                if len(counts) == 30:
                    break
        assert max(counts[1:]) <= counts[1] + 2


async def test_pings_are_answered_on_every_connection(clock: trio.testing.MockClock) -> None:
    async def ping(server: RawPeer, there: Feed) -> None:
        await server.accept()
        await server.send_frame(0x9, b"x")
        await server.expect(0xA, b"x")
        await server.send_close(1001)
        await server.expect_close()

    async with feed(ping, ping, ping) as there:
        seen = 0
        async with reconnect(there.url, proxy=None) as connections:
            async for ws in connections:
                seen += 1
                if seen == 4:
                    break
                await trio.sleep(5)
                assert ws.closed is not None
        assert None not in there.codes


def open_sockets() -> int:
    """How many descriptors of this process are sockets."""

    def is_socket(link: Path) -> bool:
        try:
            return str(link.readlink()).startswith("socket:")
        except OSError:
            return False

    return sum(map(is_socket, Path("/proc/self/fd").iterdir()))


needs_proc = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="counts descriptors in /proc"
)
PATIENT = Limits(handshake_timeout=1000, close_timeout=500, cancel_grace=200)
"""The sweep's clock jumps as soon as nothing happens; a late kernel is not to be a timeout."""


@needs_proc
@pytest.mark.row("H6")
def test_reconnect_cancelled_at_every_step_leaks_no_socket_and_no_task() -> None:
    async def scenario(target: Target) -> None:
        async with feed(vanish, refuse(503)) as there:
            before = open_sockets()
            async with target:
                async with reconnect(there.url, proxy=None, limits=PATIENT) as connections:
                    seen = 0
                    async for ws in connections:
                        seen += 1
                        await ws.send("hello")
                        if seen == 2:
                            break
                        await ws.wait_closed()
            while there.gone < len(there.came):
                await trio.sleep(0.1)
            await trio.testing.wait_all_tasks_blocked()
            assert open_sockets() == before

    report = cancel_at_every_step(scenario, timeout=10_000)
    print(report)
    assert report.delivered > 10


@needs_proc
def test_connect_over_tcp_cancelled_at_every_step_leaks_no_socket_and_no_task() -> None:
    async def scenario(target: Target) -> None:
        async with feed() as there:
            before = open_sockets()
            async with target:
                async with connect(there.url, proxy=None, limits=PATIENT) as ws:
                    await ws.send("hello")
            while there.gone < len(there.came):
                await trio.sleep(0.1)
            await trio.testing.wait_all_tasks_blocked()
            assert open_sockets() == before

    report = cancel_at_every_step(scenario, timeout=10_000)
    print(report)
    assert report.delivered > 5
