"""The block of `connect` ends: by itself, by an error, by cancellation, by the server.

Lives here: who is told what, what comes out, how long it takes, on the mock clock. Must never live
here: opening (test_client_opening), every step of it (test_client_cancellation).
"""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from trio_ws import Close, ConnectionClosed, ConnectionLost, HandshakeError, connect_stream
from trio_ws.testing import CLOSE, PING, PONG, RawPeer, StallingStream

from .client_world import PERFECT, URL, conversation, server_and_stream


@pytest.mark.row("H5")
async def test_a_block_that_returns_closes_with_1000(nursery: trio.Nursery) -> None:
    async with conversation(nursery) as (ws, server):
        nursery.start_soon(answer_close, server, 1000)
    assert ws.closed == Close(code=1000, initiator="local")


async def answer_close(server: RawPeer, code: int) -> None:
    frame = await server.expect_close(code)
    await server.send_frame(CLOSE, frame.payload)
    await server.stream.aclose()


class Mine(Exception):
    pass


@pytest.mark.row("H5")
@pytest.mark.parametrize(
    "raised",
    [
        Mine("one"),
        ExceptionGroup("several", [Mine(), ValueError()]),
        ExceptionGroup("nested", [ExceptionGroup("inner", [Mine()])]),
        StopAsyncIteration("odd"),
        StopIteration("odd"),
        RuntimeError("odd"),
        trio.TooSlowError("mine"),
        OSError("mine"),
        HandshakeError("another connection's"),
        ConnectionClosed(Close(code=1000, initiator="peer")),
    ],
    ids=lambda exc: type(exc).__name__,
)
async def test_what_the_block_raises_comes_out_as_the_very_object(
    raised: Exception, nursery: trio.Nursery
) -> None:
    """In no group of ours, with no context or cause of ours, and the server hears 1011."""
    context = raised.__context__
    with pytest.raises(type(raised)) as caught:
        async with conversation(nursery) as (ws, server):
            nursery.start_soon(answer_close, server, 1011)
            raise raised
    assert caught.value is raised
    assert raised.__context__ is context
    assert raised.__cause__ is None
    assert ws.closed is not None
    assert ws.closed.code == 1011


@pytest.mark.row("H5")
async def test_several_tasks_of_the_block_fail_in_the_callers_own_group(
    nursery: trio.Nursery,
) -> None:
    async def fail(exc: Exception) -> None:
        raise exc

    with pytest.raises(ExceptionGroup) as caught:
        async with conversation(nursery) as (_, server):
            nursery.start_soon(answer_close, server, 1011)
            async with trio.open_nursery() as inner:
                inner.start_soon(fail, Mine())
                inner.start_soon(fail, ValueError())
    assert {type(exc) for exc in caught.value.exceptions} == {Mine, ValueError}


@pytest.mark.row("H5")
@pytest.mark.parametrize(
    ("options", "payload"),
    [
        ({}, b"\x03\xe9"),
        ({"cancel_code": 4000, "cancel_reason": "later"}, b"\x0f\xa0later"),
    ],
)
async def test_a_cancelled_block_closes_with_1001_or_what_was_asked_for(
    options: dict[str, Any],
    payload: bytes,
    nursery: trio.Nursery,
    autojump_clock: trio.testing.MockClock,
) -> None:
    with trio.CancelScope() as scope:
        async with conversation(nursery, **options) as (_, server):
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    await server.expect(CLOSE, payload)
    await server.expect_eof()


@pytest.mark.row("H5")
@pytest.mark.parametrize("raises", [False, True])
async def test_haste_waits_for_the_server_no_longer_than_the_grace(
    raises: bool, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """A deaf server delays neither cancellation nor an exception by more than `cancel_grace`."""
    near, far = trio.testing.memory_stream_pair()
    server, stream = RawPeer(far, role="server"), StallingStream(near, after=10_000)
    nursery.start_soon(server.accept)
    with trio.CancelScope() as scope:
        try:
            async with connect_stream(stream, URL, limits=PERFECT) as ws:
                stream.stall()
                await ws.send("x" * 1000)
                started = trio.current_time()
                if raises:
                    raise Mine
                scope.cancel()
        except Mine:
            assert raises
    assert trio.current_time() - started == pytest.approx(1)
    assert stream.closed


@pytest.mark.parametrize("silent", [True, False])
async def test_a_block_that_returns_waits_for_the_server_as_long_as_close_timeout(
    silent: bool, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    async with conversation(nursery, limits=PERFECT) as (ws, server):
        started = trio.current_time()
        if not silent:
            nursery.start_soon(answer_close, server, 1000)
    assert trio.current_time() - started == pytest.approx(5 if silent else 0)
    assert ws.closed is not None
    assert ws.closed.code == (1006 if silent else 1000)


@pytest.mark.row("D4")
async def test_a_server_that_closes_and_keeps_its_socket_has_until_close_timeout(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """RFC 6455 section 7.1.1: the server closes TCP first; one that does not is not waited for.
    The end is known at once; only the socket waits."""
    async with conversation(nursery, limits=PERFECT) as (ws, server):
        await server.send_close(1000, "bye")
        started = trio.current_time()
        with pytest.raises(trio.EndOfChannel):
            await ws.receive()
        assert trio.current_time() == started
        assert ws.closed == Close(code=1000, reason="bye", initiator="peer")
    assert trio.current_time() - started == pytest.approx(5)
    await server.expect(CLOSE, b"\x03\xe8bye")
    await server.expect_eof()


@pytest.mark.row("D4")
async def test_the_sockets_deadline_does_not_wait_for_the_block(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    server, stream = server_and_stream()
    nursery.start_soon(server.accept)
    async with connect_stream(stream, URL, limits=PERFECT):
        await server.send_close(4000)
        await trio.sleep(5 + 2)  # one tick of the attendant to see the Close, then the deadline
        assert stream.closed


@pytest.mark.row("D3")
@pytest.mark.parametrize("theirs_first", [True, False])
async def test_both_close_at_once(
    theirs_first: bool, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """One Close each, and the client reports the server's code."""
    async with conversation(nursery) as (ws, server):
        async with trio.open_nursery() as both:
            if theirs_first:
                await server.send_close(4001)
            both.start_soon(ws.close, 4000)
            if not theirs_first:
                await trio.testing.wait_all_tasks_blocked()
                await server.send_close(4001)
            await server.expect(CLOSE, b"\x0f\xa0")
            await server.stream.aclose()
    assert ws.closed == Close(code=4001, initiator="local")


async def test_its_own_end_that_escapes_the_block_is_no_failure(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """It comes out, but the farewell is the polite one: the server is not hung up on."""
    with pytest.raises(ConnectionClosed) as caught:
        async with conversation(nursery, limits=PERFECT) as (ws, server):
            await server.send_close(1012)
            started = trio.current_time()
            while True:
                await ws.receive()
    assert caught.value.close is ws.closed
    assert trio.current_time() - started == pytest.approx(5)


async def test_a_lost_connection_is_told_and_left(nursery: trio.Nursery) -> None:
    with pytest.raises(ConnectionLost):
        async with conversation(nursery) as (ws, server):
            await server.stream.aclose()
            await ws.receive()


async def test_pings_are_answered_while_the_block_sleeps(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    async with conversation(nursery) as (_, server):
        await server.send_frame(PING, b"there?")
        await trio.sleep(3)
        await server.expect(PONG, b"there?")
        await server.stream.aclose()


async def test_after_the_block_every_call_says_it_is_closed(nursery: trio.Nursery) -> None:
    async with conversation(nursery) as (ws, server):
        nursery.start_soon(answer_close, server, 1000)
    with pytest.raises(ConnectionClosed):
        await ws.send("late")
    with pytest.raises(ConnectionClosed):
        await ws.receive()
    assert (await ws.wait_closed()).code == 1000
