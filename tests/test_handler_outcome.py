"""How a handler ends, and what its peer, the log, the other connections and `serve` hear of it."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_ws import Close, ConnectionClosed, Limits, WebSocket, serve_stream
from trio_ws._outcome import Outcome, holds_error, how_it_ended
from trio_ws.testing import RawPeer, StallingStream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio_ws._options import Handler

OWN = Close(code=1000, initiator="peer")
ELSEWHERE = Close(code=1000, initiator="peer")


class Recorder:
    """What came out of `serve_stream`."""

    def __init__(self) -> None:
        self.raised: BaseException | None = None
        self.scope = trio.CancelScope()
        self.done = trio.Event()


@asynccontextmanager
async def served(handler: Handler, **options: Any) -> AsyncIterator[tuple[RawPeer, Recorder]]:
    """A server of one connection in memory, and its peer with the handshake done."""
    ours, theirs = trio.testing.memory_stream_pair()
    recorder = Recorder()

    async def run() -> None:
        with recorder.scope:
            try:
                await serve_stream(handler, theirs, **options)
            except BaseException as exc:
                recorder.raised = exc
                if isinstance(exc, trio.Cancelled):
                    raise
        recorder.done.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        peer = RawPeer(ours)
        await peer.request()
        yield peer, recorder
        with trio.fail_after(60):
            await recorder.done.wait()


def error_lines(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.levelno >= logging.WARNING]


# -- the ranking ---------------------------------------------------------------------------------


async def cancelled() -> trio.Cancelled:
    """A Cancelled to play with: trio lets nobody make one."""
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled as exc:
            return exc
    raise AssertionError


@pytest.mark.row("D14")
async def test_the_weightiest_leaf_decides() -> None:
    """KeyboardInterrupt and SystemExit > Cancelled > an error > the connection's own end."""
    own, other, error = ConnectionClosed(OWN), ConnectionClosed(ELSEWHERE), ValueError()
    stop, interrupt = await cancelled(), KeyboardInterrupt()
    cases: list[tuple[list[BaseException], Outcome]] = [
        ([own], Outcome.RETURNED),
        ([own, ConnectionClosed(OWN)], Outcome.RETURNED),
        ([other], Outcome.ERROR),
        ([own, other], Outcome.ERROR),
        ([own, error], Outcome.ERROR),
        ([stop, own], Outcome.CANCELLED),
        ([error, stop], Outcome.CANCELLED),
        ([stop, SystemExit(), error], Outcome.EXIT),
        ([interrupt], Outcome.EXIT),
    ]
    for leaves, outcome in cases:
        group: BaseException = BaseExceptionGroup("outer", [BaseExceptionGroup("inner", leaves)])
        assert how_it_ended(group, OWN) is outcome
        assert holds_error(group, OWN) is (error in leaves or other in leaves)
        if len(leaves) == 1:
            assert how_it_ended(leaves[0], OWN) is outcome
    assert how_it_ended(None, None) is Outcome.RETURNED
    assert how_it_ended(own, None) is Outcome.ERROR, "an open connection has no own end"


def test_a_group_of_any_depth_is_taken_apart() -> None:
    deep: Exception = ValueError()
    for _ in range(5000):
        deep = ExceptionGroup("", [deep])
    assert how_it_ended(deep) is Outcome.ERROR


# -- the outcomes --------------------------------------------------------------------------------


async def test_a_handler_that_returns_closes_1000(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(ws: WebSocket) -> None:
        await ws.send("bye")

    async with served(handler) as (peer, recorder):
        assert await peer.receive_message() == "bye"
        await peer.expect_close(1000)
        await peer.send_close(1000)
        await peer.expect_eof()
    assert recorder.raised is None
    assert not error_lines(caplog)


@pytest.mark.row("D14")
@pytest.mark.parametrize(
    "error",
    [
        ValueError("a bug"),
        ExceptionGroup("two", [ValueError("a bug"), OSError()]),
        ConnectionClosed(ELSEWHERE),
        ExceptionGroup("bridge", [ConnectionClosed(ELSEWHERE)]),
    ],
    ids=["one", "group", "another connection's end", "and in a group"],
)
async def test_a_handler_that_raises_closes_1011_and_is_logged_once(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(ws: WebSocket) -> None:
        raise error

    async with served(handler) as (peer, recorder):
        await peer.expect_close(1011)
        await peer.send_close(1011)
        await peer.expect_eof()
    assert recorder.raised is None
    (record,) = error_lines(caplog)
    assert record.name == "trio_ws.connection"
    assert record.exc_info is not None
    assert record.exc_info[1] is error


@pytest.mark.parametrize("grouped", [False, True])
async def test_the_end_of_its_own_connection_is_no_error(
    grouped: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(ws: WebSocket) -> None:
        if not grouped:
            await ws.receive()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ws.receive)
            nursery.start_soon(ws.ping)

    async with served(handler, raise_handler_errors=True) as (peer, recorder):
        await peer.send_close(4321)
        await peer.expect_close(4321)
        await peer.expect_eof()
    assert recorder.raised is None
    assert not error_lines(caplog)


async def test_raise_handler_errors_raises_the_very_object(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The peer is told 1011 all the same; nothing is logged, because nothing is swallowed."""
    error = ValueError("a bug")

    async def handler(ws: WebSocket) -> None:
        raise error

    async with served(handler, raise_handler_errors=True) as (peer, recorder):
        await peer.expect_close(1011)
        await peer.send_close(1011)
        await peer.expect_eof()
    assert recorder.raised is error
    assert not error_lines(caplog)


@pytest.mark.row("D14")
@pytest.mark.parametrize("exit_", [KeyboardInterrupt(), SystemExit(3)], ids=repr)
async def test_interrupts_go_through_and_the_peer_is_told(exit_: BaseException) -> None:
    async def handler(ws: WebSocket) -> None:
        raise exit_

    async with served(handler) as (peer, recorder):
        await peer.expect_close(1001)
        await peer.send_close(1001)
        await peer.expect_eof()
    assert recorder.raised is exit_


@pytest.mark.row("D15")
async def test_what_was_sent_is_flushed_before_the_close_1000(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The handler returns while the peer does not read: its messages arrive whole, then 1000."""
    ours, theirs = trio.testing.memory_stream_pair()
    stalling = StallingStream(theirs, after=200)
    messages = [f"{number}" * 1000 for number in range(8)]

    async def handler(ws: WebSocket) -> None:
        for message in messages:
            await ws.send(message)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_stream, handler, stalling)
        peer = RawPeer(ours)
        await peer.request()
        await trio.sleep(1)
        assert peer.messages == []
        stalling.release()
        assert [await peer.receive_message() for _ in messages] == messages
        await peer.expect_close(1000)
        await peer.send_close(1000)
        await peer.expect_eof()


# -- handlers and cancellation -------------------------------------------------------------------


async def swallows(ws: WebSocket) -> None:
    try:
        await trio.sleep_forever()
    except trio.Cancelled:
        pass


async def raises_meanwhile(ws: WebSocket) -> None:
    try:
        await trio.sleep_forever()
    finally:
        raise ValueError("while cancelled")


async def raises_beside(ws: WebSocket) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        nursery.start_soon(raises_meanwhile, ws)


async def obeys(ws: WebSocket) -> None:
    await trio.sleep_forever()


@pytest.mark.parametrize("raises", [False, True])
@pytest.mark.parametrize("handler", [obeys, swallows, raises_meanwhile, raises_beside])
async def test_no_handler_changes_the_close_of_a_cancelled_connection(
    handler: Handler, raises: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The peer hears `cancel_code`, errors are logged, and Cancelled goes on, bare."""
    async with served(
        handler, raise_handler_errors=raises, cancel_code=1012, cancel_reason="again"
    ) as (peer, recorder):
        await trio.testing.wait_all_tasks_blocked()
        recorder.scope.cancel()
        frame = await peer.expect_close(1012)
        assert frame.payload[2:] == b"again"
        await peer.send_close(1012)
        await peer.expect_eof()
    assert isinstance(recorder.raised, trio.Cancelled)
    assert recorder.scope.cancelled_caught
    assert len(error_lines(caplog)) == (handler in {raises_meanwhile, raises_beside})


async def test_cancelling_a_part_of_a_handler_is_its_own_business() -> None:
    async def handler(ws: WebSocket) -> None:
        with trio.move_on_after(0):
            await ws.receive()
        await ws.send("still here")

    async with served(handler) as (peer, _):
        assert await peer.receive_message() == "still here"
        await peer.expect_close(1000)
        await peer.send_close(1000)


async def test_the_stream_is_closed_however_its_handler_ends() -> None:
    """Even by a handler that has closed its own connection, and by a peer that never answers."""

    async def handler(ws: WebSocket) -> None:
        await ws.close(4000, "enough")

    async with served(handler, limits=Limits(close_timeout=0.05)) as (peer, recorder):
        await peer.expect_close(4000)
        await recorder.done.wait()
        await peer.expect_eof()
    assert recorder.raised is None
