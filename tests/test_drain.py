"""`Server.drain`: nobody new is let in, everybody is told, and patience has one end."""

from __future__ import annotations

import logging
import math
import socket
import ssl
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from trio_ws import (
    Limits,
    Response,
    Server,
    UpgradeRequest,
    WebSocket,
    open_tcp_listeners,
    serve_listeners,
)
from trio_ws.testing import RawPeer, upgrade_head

PATIENT = Limits(close_timeout=1000, cancel_grace=0, ping_interval=None)


async def echo(ws: WebSocket) -> None:
    async for message in ws:
        await ws.send(message)


async def answer(peer: RawPeer, code: int = 1001) -> float:
    """Answer the Close; when it came."""
    frame = await peer.expect_close(code)
    told = trio.current_time()
    await peer.send_close(frame.close_code)
    await peer.expect_eof()
    return told


async def test_everybody_is_told_and_serve_returns(
    served: Any, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """With the code and reason given; nobody is a straggler; no second of the grace is spent."""
    await served.start()
    peers = await served.peers(5)
    began = trio.current_time()
    left: list[Any] = []

    async def drain() -> None:
        left.append(await served.server.drain(60, code=1012, reason="new version"))

    nursery.start_soon(drain)
    for peer in peers:
        frame = await peer.expect_close(1012)
        assert frame.close_reason == "new version"
        await peer.send_close(1012)
        await peer.expect_eof()
    await trio.sleep(0.1)
    assert left == [()]
    assert served.returned_at is not None
    assert served.returned_at - began < 0.1
    assert served.listener.closed
    assert await served.server.drain(60) == (), "afterwards it returns at once"


async def test_a_server_without_connections_is_drained_at_once(
    served: Any,
    autojump_clock: trio.testing.MockClock,
) -> None:
    await served.start()
    assert await served.server.drain(math.inf) == ()
    assert trio.current_time() < 1


async def test_the_closes_are_spread_evenly(
    served: Any, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """The first at once, the last when the spread ends; until told, a connection works."""
    await served.start()
    peers = await served.peers(5)
    began = trio.current_time()
    nursery.start_soon(partial(served.server.drain, 60, spread=8))
    await trio.testing.wait_all_tasks_blocked()
    await peers[4].send_message("still here?")
    assert await peers[4].receive_message() == "still here?"
    told = [await answer(peer) - began for peer in peers]
    assert told == pytest.approx([0, 2, 4, 6, 8], abs=0.05)
    await trio.testing.wait_all_tasks_blocked()
    assert served.returned_at == pytest.approx(began + 8, abs=0.05)


async def test_connections_that_end_by_themselves_need_no_turn(
    served: Any, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    await served.start()
    peers = await served.peers(5)
    began = trio.current_time()
    nursery.start_soon(partial(served.server.drain, 60, spread=8))
    await trio.testing.wait_all_tasks_blocked()
    for peer in peers[1:3]:
        await peer.send_close(1000)
        await peer.expect_close(1000)
    told = [await answer(peer) - began for peer in (peers[0], *peers[3:])]
    assert told[-1] <= 8.05


async def test_what_is_left_when_the_grace_is_over_is_closed_at_once(
    nursery: trio.Nursery,
    autojump_clock: trio.testing.MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Peers that do not answer and handlers that do not end cost the grace, exactly; their
    addresses come back, and a handler gets no second grace."""
    cancelled_at: list[float] = []

    async def handler(ws: WebSocket) -> None:
        try:
            await trio.sleep_forever()
        finally:
            cancelled_at.append(trio.current_time())

    caplog.set_level(logging.INFO, "trio_ws.server")
    listeners = await open_tcp_listeners(0, host="127.0.0.1")
    served_until: list[float] = []

    async def run(task_status: trio.TaskStatus[Server]) -> None:
        limits = Limits(close_timeout=1000, cancel_grace=500, ping_interval=None)
        await serve_listeners(handler, listeners, task_status=task_status, limits=limits)
        served_until.append(trio.current_time())

    server: Server = await nursery.start(run)
    stream = await trio.open_tcp_stream("127.0.0.1", server.port)
    polite = await trio.open_tcp_stream("127.0.0.1", server.port)
    async with RawPeer(stream) as deaf, RawPeer(polite) as good:
        await deaf.request()
        await good.request()
        nursery.start_soon(answer, good)
        began = trio.current_time()
        left = await server.drain(30)
        assert left == (stream.socket.getsockname()[:2],)
        assert trio.current_time() - began == pytest.approx(30, abs=0.05)
        await trio.testing.wait_all_tasks_blocked()
        assert served_until == pytest.approx([began + 30], abs=0.05)
        assert cancelled_at == pytest.approx([began + 30] * 2, abs=0.05)
        await deaf.expect_close(1001)
        await deaf.expect_eof()
    assert "1 connections were cut off" in caplog.text


async def test_the_grace_bounds_the_spread(
    served: Any, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """Who has not had their turn is told when the grace is over, and cut off."""
    await served.start()
    peers = await served.peers(3)
    began = trio.current_time()
    nursery.start_soon(answer, peers[0])
    left = await served.server.drain(10, spread=100)
    assert trio.current_time() - began == pytest.approx(10, abs=0.05)
    assert left == (None, None), "memory streams have no address"
    for peer in peers[1:]:
        await peer.expect_close(1001)
        await peer.expect_eof()


async def test_a_second_drain_joins_the_first_with_the_earlier_deadline(
    served: Any, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """Both return the same; the later deadline changes nothing; code and reason stay."""
    await served.start()
    peers = await served.peers(2)
    began = trio.current_time()
    ended: list[tuple[float, Any]] = []

    async def drain(after: float, grace: float, **how: Any) -> None:
        await trio.sleep(after)
        left = await served.server.drain(grace, **how)
        ended.append((trio.current_time() - began, left))

    nursery.start_soon(partial(drain, 0, 60, code=4000, reason="first"))
    nursery.start_soon(partial(drain, 5, 10, code=4001, reason="second"))
    nursery.start_soon(partial(drain, 6, 500, code=4002))
    for peer in peers:
        assert (await peer.expect_close(4000)).close_reason == "first"
    await trio.sleep(100)
    assert ended == [(pytest.approx(15, abs=0.05), (None, None))] * 3


async def test_a_second_drain_hurries_the_spread_of_the_first(
    served: Any, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    await served.start()
    peers = await served.peers(4)
    began = trio.current_time()
    nursery.start_soon(partial(served.server.drain, 60, spread=30))

    async def hurry() -> None:
        await trio.sleep(1)
        await served.server.drain(60)

    nursery.start_soon(hurry)
    told = [await answer(peer) - began for peer in peers]
    assert told == pytest.approx([0, 1, 1, 1], abs=0.05)


async def test_the_drain_goes_on_if_its_caller_is_cancelled(
    served: Any, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    await served.start()
    peers = await served.peers(2)
    with trio.move_on_after(0):
        await served.server.drain(60, spread=4)
    told = [await answer(peer) for peer in peers]
    assert told[1] - told[0] == pytest.approx(4, abs=0.05)
    await trio.testing.wait_all_tasks_blocked()
    assert served.returned_at is not None


async def test_cancelling_the_server_outranks_a_drain(
    served: Any, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """`cancel_grace` counts from there, with `cancel_code` for who was not told yet; `drain`
    returns with whom that cut off."""
    limits = Limits(close_timeout=1000, cancel_grace=3, ping_interval=None)
    await served.start(limits=limits, cancel_code=4444)
    peers = await served.peers(2)
    began = trio.current_time()
    nursery.start_soon(answer, peers[0], 4000)

    async def cancel() -> None:
        await trio.sleep(5)
        served.scope.cancel()

    nursery.start_soon(cancel)
    left = await served.server.drain(60, code=4000, spread=50)
    assert trio.current_time() - began == pytest.approx(8, abs=0.05)
    assert left == (None,)
    assert (await peers[1].expect_close()).close_code == 4444
    assert served.returned_at is None, "cancelled, not returned"


async def test_handlers_have_the_grace_to_finish(
    served: Any, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """The connection is over, what follows it in the handler is not; `serve` waits for it."""
    finished: list[float] = []

    async def handler(ws: WebSocket) -> None:
        await echo(ws)
        await trio.sleep(7)
        finished.append(trio.current_time())

    await served.start(handler)
    (peer,) = await served.peers(1)
    began = trio.current_time()
    nursery.start_soon(answer, peer)
    assert await served.server.drain(60) == ()
    assert finished == pytest.approx([began + 7], abs=0.05)


async def test_a_handler_may_drain_its_own_server(
    served: Any, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """It waits for itself, all the grace, and is cancelled then."""

    async def handler(ws: WebSocket) -> None:
        await served.server.drain(5)

    await served.start(handler)
    began = trio.current_time()
    (peer,) = await served.peers(1)
    await answer(peer)
    await trio.sleep(5.1)
    assert served.returned_at == pytest.approx(began + 5, abs=0.05)


@pytest.mark.parametrize(
    "wrong",
    [
        {"grace": -1},
        {"grace": math.nan},
        {"grace": 1, "spread": -1},
        {"grace": 1, "code": 1006},
        {"grace": 1, "reason": "x" * 124},
    ],
    ids=str,
)
async def test_wrong_arguments_drain_nothing(
    served: Any, nursery: trio.Nursery, wrong: dict[str, Any]
) -> None:
    await served.start()
    with pytest.raises(ValueError, match="grace|spread|close"):
        await served.server.drain(**wrong)
    (peer,) = await served.peers(1)
    await peer.send_message("alive")
    assert await peer.receive_message() == "alive"
    served.scope.cancel()


# -- handshakes ----------------------------------------------------------------------------------


async def status_of(stream: trio.abc.ReceiveStream) -> bytes:
    """The status of the one response that comes, up to the end."""
    received = b""
    while data := await stream.receive_some():
        received += data
    if not received:
        return b""
    assert b"\r\nRetry-After: " in received or received.startswith(b"HTTP/1.1 200 ")
    return received.split(b" ", 2)[1]


@pytest.mark.row("D16")
@pytest.mark.parametrize("sent", [b"", upgrade_head()[:40]], ids=["silent", "half a head"])
async def test_handshakes_in_flight_are_told_503(
    served: Any, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, sent: bytes
) -> None:
    """At once: nobody can make the drain wait for a request that never comes."""
    await served.start()
    stream = served.listener.connect()
    await stream.send_all(sent)
    await trio.testing.wait_all_tasks_blocked()
    began = trio.current_time()
    nursery.start_soon(served.server.drain, 60)
    with trio.fail_after(0.5):
        assert await status_of(stream) == b"503"
    await stream.aclose()
    await trio.sleep(0.1)
    assert served.returned_at is not None
    assert served.returned_at - began < 1
    assert served.server.stats().refused == {"capacity": 1}


@pytest.mark.row("D16")
async def test_authorize_is_cut_short_and_the_client_told_503(
    served: Any, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    asked = trio.Event()

    async def authorize(request: UpgradeRequest) -> None:
        asked.set()
        await trio.sleep(5)

    await served.start(authorize=authorize)
    stream = served.listener.connect()
    await stream.send_all(upgrade_head())
    await asked.wait()
    nursery.start_soon(served.server.drain, 60)
    with trio.fail_after(0.5):
        assert await status_of(stream) == b"503"
    await stream.aclose()


async def test_a_page_in_the_making_is_delivered(
    served: Any, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    asked = trio.Event()

    async def page(request: UpgradeRequest) -> Response:
        asked.set()
        await trio.sleep(5)
        return Response(200, body="here")

    await served.start(http=page)
    stream = served.listener.connect()
    await stream.send_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await asked.wait()
    nursery.start_soon(served.server.drain, 60)
    assert await status_of(stream) == b"200"
    await stream.aclose()


@pytest.mark.row("D16")
async def test_what_queues_is_accepted_and_told_before_the_listener_closes(
    served: Any, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """Twenty in the queue at the moment of the drain: twenty times 503, no reset."""
    await served.start()
    nursery.start_soon(served.server.drain, 60)
    streams = [served.listener.connect() for _ in range(20)]
    for stream in streams:
        await stream.send_all(upgrade_head())
    for stream in streams:
        assert await status_of(stream) == b"503"
        await stream.aclose()
    await trio.sleep(0.1)
    assert served.listener.closed
    assert served.returned_at is not None


@pytest.mark.row("D16")
async def test_the_kernels_queue_is_emptied_then_nobody_gets_in() -> None:
    """The same over TCP, with the real clock."""
    async with trio.open_nursery() as nursery:
        (listener,) = await open_tcp_listeners(0, host="127.0.0.1")
        server: Server = await nursery.start(serve_listeners, echo, [listener])
        port = server.port
        statuses: list[bytes] = []

        async def ask(stream: trio.SocketStream) -> None:
            async with stream:
                statuses.append(await status_of(stream))

        # Nothing is awaited here, so the server cannot accept: they queue in the kernel.
        sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(5)]
        nursery.start_soon(server.drain, 10)
        for each in sockets:
            nursery.start_soon(ask, trio.SocketStream(trio.socket.from_stdlib_socket(each)))
    assert statuses == [b"503"] * 5
    with pytest.raises(OSError, match="connect"):
        await trio.open_tcp_stream("127.0.0.1", port)


@pytest.mark.row("D16")
async def test_a_tls_handshake_is_finished_to_be_told(
    served: Any, server_ssl_context: ssl.SSLContext, client_ssl_context: ssl.SSLContext
) -> None:
    async with trio.open_nursery() as nursery:
        await served.start(ssl_context=server_ssl_context)
        stream = trio.SSLStream(
            served.listener.connect(),
            client_ssl_context,
            server_hostname="localhost",
            https_compatible=True,
        )
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(served.server.drain, 10)
        await trio.testing.wait_all_tasks_blocked()
        await stream.do_handshake()
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 503 ")
        await stream.aclose()


async def test_a_101_on_its_way_is_finished_and_its_connection_closed(
    served: Any, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """Not a byte of a 503 in the middle of a 101."""
    ours, theirs = trio.testing.lockstep_stream_pair()
    await served.start()
    served.listener.put(theirs)
    await ours.send_all(upgrade_head())
    await trio.testing.wait_all_tasks_blocked()
    nursery.start_soon(served.server.drain, 60)
    await trio.testing.wait_all_tasks_blocked()
    peer = RawPeer(ours)
    assert (await peer.receive_head()).startswith(b"HTTP/1.1 101 ")
    await peer.expect_close(1001)
    await peer.send_close(1001)
    await peer.expect_eof()


@pytest.mark.parametrize("missing", [0, 10])
async def test_a_drain_meets_a_handshake_in_the_pass_in_which_its_bytes_come(
    served: Any, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, missing: int
) -> None:
    """Whoever runs first in that pass: 503, and at once; the handshake's next wait knows of it."""

    async def think(_: object) -> None:
        await trio.sleep(8)

    head = upgrade_head()
    for _ in range(20):  # the tasks of a pass run in an order that is trio's to choose
        again = type(served)(nursery)
        await again.start(authorize=think)
        stream = again.listener.connect()
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        await stream.send_all(head[: len(head) - missing])
        nursery.start_soon(again.server.drain, 20)
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 503 ")
        assert trio.current_time() == began
        await stream.aclose()
