"""`Server` and its doors: what they report, isolate, cap, own, and let through."""

from __future__ import annotations

import errno
import logging
import signal
import socket
import ssl
import sys
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_ws import (
    Limits,
    Policy,
    Routes,
    Server,
    UpgradeRequest,
    WebSocket,
    open_tcp_listeners,
    open_unix_listener,
    serve,
    serve_listeners,
    serve_stream,
)
from trio_ws.testing import RawPeer, upgrade_head

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


async def echo(ws: WebSocket) -> None:
    async for message in ws:
        await ws.send(message)


class MemoryListener(trio.abc.Listener[trio.abc.Stream]):
    """Accepts what `connect` puts in; an exception put in is raised from `accept`."""

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[Any](1000)
        self.accepts = 0
        self.closed = False

    def connect(self) -> trio.StapledStream[Any, Any]:
        ours, theirs = trio.testing.memory_stream_pair()
        self._send.send_nowait(theirs)
        return ours

    def put(self, error: Exception) -> None:
        self._send.send_nowait(error)

    async def accept(self) -> trio.abc.Stream:
        self.accepts += 1
        item = await self._receive.receive()
        if isinstance(item, Exception):
            raise item
        return item  # type: ignore[no-any-return]

    async def aclose(self) -> None:
        self.closed = True
        self._receive.close()
        await trio.lowlevel.checkpoint()


@asynccontextmanager
async def serving(
    listener: trio.abc.Listener[Any], handler: Any = echo, **options: Any
) -> AsyncIterator[Server]:
    """A server for the body; cancelled at its end, without waiting for anybody."""
    options["limits"] = replace(options.get("limits", Limits()), cancel_grace=0)
    async with trio.open_nursery() as nursery:

        async def run(task_status: trio.TaskStatus[Server]) -> None:
            await serve_listeners(handler, [listener], task_status=task_status, **options)

        yield await nursery.start(run)
        nursery.cancel_scope.cancel()


async def talk(peer: RawPeer, text: str = "hello") -> None:
    """The connection works."""
    await peer.send_message(text)
    assert await peer.receive_message() == text


# -- what a Server reports -----------------------------------------------------------------------


async def test_serve_reports_its_port_and_its_connections() -> None:
    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(serve, echo, 0)
        assert len(server.listeners) == 2
        assert server.connections == frozenset()
        for host in ("127.0.0.1", "::1"):
            stream = await trio.open_tcp_stream(host, server.port)
            async with RawPeer(stream) as peer:
                await peer.request("/x?y")
                await talk(peer)
                (ws,) = server.connections
                assert ws.request.path == "/x"
                assert ws.peer_address == stream.socket.getsockname()[:2]
                assert ws.local_address == (host, server.port)
                await peer.send_close()
                await peer.expect_close(1000)
                await peer.expect_eof()
            await trio.testing.wait_all_tasks_blocked()
            assert server.connections == frozenset()
        nursery.cancel_scope.cancel()


async def test_port_needs_one_port_to_report() -> None:
    async with serving(MemoryListener()) as server:
        with pytest.raises(RuntimeError, match="listeners"):
            _ = server.port
    several = [
        *await open_tcp_listeners(0, host="127.0.0.1"),
        *await open_tcp_listeners(0, host="127.0.0.1"),
    ]
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve_listeners, echo, several)
        with pytest.raises(RuntimeError, match="listeners"):
            _ = server.port
        assert server.listeners == tuple(several)
        nursery.cancel_scope.cancel()


async def test_serve_over_tls(
    server_ssl_context: ssl.SSLContext, client_ssl_context: ssl.SSLContext
) -> None:
    """``wss``, and somebody who speaks no TLS hurts nobody."""
    async with trio.open_nursery() as nursery:

        async def run(task_status: trio.TaskStatus[Server]) -> None:
            await serve(
                echo, 0, host="127.0.0.1", ssl_context=server_ssl_context, task_status=task_status
            )

        server = await nursery.start(run)
        async with await trio.open_tcp_stream("127.0.0.1", server.port) as plain:
            await plain.send_all(upgrade_head())
            assert not (await plain.receive_some()).startswith(b"HTTP")
        stream = await trio.open_ssl_over_tcp_stream(
            "127.0.0.1", server.port, ssl_context=client_ssl_context, https_compatible=True
        )
        async with RawPeer(stream) as peer:
            await peer.request()
            await talk(peer)
            (ws,) = server.connections
            assert ws.request.tls
            assert ws.request.scheme == "https"
            assert ws.peer_address == stream.transport_stream.socket.getsockname()[:2]
        nursery.cancel_scope.cancel()


@pytest.mark.skipif(sys.platform == "win32", reason="unix sockets")
async def test_serve_on_a_unix_socket(tmp_path: Path) -> None:
    """Peers have no address, ours is the path; the file is gone afterwards."""
    path = tmp_path / "ws.sock"
    async with serving(await open_unix_listener(path)) as server:
        with pytest.raises(RuntimeError):
            _ = server.port
        async with RawPeer(await trio.open_unix_socket(path)) as peer:
            await peer.request()
            await talk(peer)
            (ws,) = server.connections
            assert ws.peer_address == ""
            assert ws.local_address == str(path)
    assert not path.exists()


async def test_routes_choose_the_handler_and_404_the_rest() -> None:
    async def room(ws: WebSocket) -> None:
        await ws.send(ws.request.params["room"])

    listener = MemoryListener()
    async with serving(listener, Routes({"/chat/{room}": room})):
        peer = RawPeer(listener.connect())
        await peer.request("/chat/blue")
        assert await peer.receive_message() == "blue"
        stream = listener.connect()
        await stream.send_all(upgrade_head("/elsewhere"))
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 404 ")


async def test_serve_stream_returns_when_its_connection_is_over() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_stream, echo, theirs)
        async with RawPeer(ours) as peer:
            await peer.request()
            await talk(peer)
            await peer.send_close(1000)
            await peer.expect_close(1000)
            await peer.expect_eof()


# -- isolation -----------------------------------------------------------------------------------


@pytest.mark.row("D14")
async def test_a_crashing_handler_leaves_its_siblings_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def handler(ws: WebSocket) -> None:
        if ws.request.path == "/crash":
            raise RuntimeError("a bug")
        await echo(ws)

    listener = MemoryListener()
    async with serving(listener, handler):
        good = RawPeer(listener.connect())
        await good.request("/good")
        for _ in range(3):
            bad = RawPeer(listener.connect())
            await bad.request("/crash")
            await bad.expect_close(1011)
            await bad.send_close(1011)
            await bad.expect_eof()
        await talk(good)
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 3


@pytest.mark.row("D14")
@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("a bug")], ids=repr)
async def test_what_ends_the_server_comes_out_bare_after_all_peers_were_told(
    error: BaseException,
) -> None:
    """KeyboardInterrupt always, an error with `raise_handler_errors`: the very object, in no
    group; the peers of other connections hear 1001."""

    async def handler(ws: WebSocket) -> None:
        if ws.request.path == "/crash":
            raise error
        await echo(ws)

    listener = MemoryListener()
    good = RawPeer(listener.connect())
    told: list[int | None] = []

    async def client() -> None:
        await good.request("/good")
        bad = RawPeer(listener.connect())
        await bad.request("/crash")
        told.append((await good.expect_close()).close_code)
        await good.send_close(1001)
        told.append((await bad.expect_close()).close_code)
        await bad.send_close(1011)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(client)
        with pytest.raises(type(error)) as caught:
            await serve_listeners(handler, [listener], raise_handler_errors=True)
    assert caught.value is error
    assert told == [1001, 1011 if isinstance(error, Exception) else 1001]
    assert listener.closed


@pytest.mark.row("D14")
@pytest.mark.skipif(sys.platform == "win32", reason="raise_signal is no Control-C there")
def test_control_c_comes_out_bare_after_all_peers_were_told() -> None:
    """A real SIGINT, which trio delivers to the main task, wherever it waits; here in `serve`."""
    codes: list[int | None] = []

    async def client(listener: MemoryListener) -> None:
        peer = RawPeer(listener.connect())
        await peer.request()
        signal.raise_signal(signal.SIGINT)
        codes.append((await peer.expect_close()).close_code)
        await peer.send_close(1001)

    async def main() -> None:
        listener = MemoryListener()
        trio.lowlevel.spawn_system_task(client, listener)
        await serve_listeners(echo, [listener])

    with pytest.raises(KeyboardInterrupt):
        trio.run(main)
    assert codes == [1001]


async def test_nothing_is_left_running_or_open() -> None:
    """After a hundred connections of all sorts: tasks as before, every stream closed."""
    listener = MemoryListener()
    before = trio.lowlevel.current_statistics().tasks_living
    async with serving(listener):
        idle = 0
        for number in range(100):
            if number == 4:  # what the server keeps for all its connections is there by now
                await trio.testing.wait_all_tasks_blocked()
                idle = trio.lowlevel.current_statistics().tasks_living
            stream = listener.connect()
            if number % 4 == 0:
                await stream.send_all(b"nonsense\r\n\r\n")
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 400 ")
            elif number % 4 == 1:
                peer = RawPeer(stream)
                await peer.request()
                await talk(peer)
            elif number % 4 == 2:
                await stream.send_all(upgrade_head()[:40])
            await stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().tasks_living == idle
    assert trio.lowlevel.current_statistics().tasks_living == before


# -- accepting -----------------------------------------------------------------------------------


@pytest.mark.row("E12")
async def test_running_out_of_descriptors_is_waited_out(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Pauses of 50 ms doubling to 1 s, at most one line a second, then service as before; the other
    listener does not notice."""
    poor, rich = MemoryListener(), MemoryListener()
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_listeners, echo, [poor, rich])
        for _ in range(10):
            poor.put(OSError(errno.EMFILE, "Too many open files"))
        late = RawPeer(poor.connect())
        began = trio.current_time()
        with trio.fail_after(0.001):
            peer = RawPeer(rich.connect())
            await peer.request()
            await talk(peer)
        await late.request()
        await talk(late)
        assert trio.current_time() - began == pytest.approx(0.05 + 0.1 + 0.2 + 0.4 + 0.8 + 5)
        assert 2 <= len(caplog.records) <= 7
        assert all("EMFILE" in record.getMessage() for record in caplog.records)
        poor.put(OSError(errno.ENOBUFS, "No buffer space"))
        late = RawPeer(poor.connect())
        began = trio.current_time()
        await late.request()
        assert trio.current_time() - began == pytest.approx(0.05), "the pause starts over"
        nursery.cancel_scope.cancel()


async def test_any_other_accept_error_ends_the_server_bare() -> None:
    error = OSError(errno.EINVAL, "not listening")
    listener, other = MemoryListener(), MemoryListener()
    peer = RawPeer(other.connect())

    async def client() -> None:
        await peer.request()
        listener.put(error)
        await peer.expect_close(1001)
        await peer.send_close(1001)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(client)
        with pytest.raises(OSError, match="not listening") as caught:
            await serve_listeners(echo, [listener, other])
    assert caught.value is error
    assert listener.closed
    assert other.closed


async def test_a_listener_closed_by_somebody_stops_accepting_and_no_more(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The others accept, connections live on, and the log has one warning."""
    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(serve, echo, 0)
        first, second = server.listeners
        assert isinstance(first, trio.SocketListener)
        assert isinstance(second, trio.SocketListener)
        peer = RawPeer(await trio.testing.open_stream_to_socket_listener(first))
        await peer.request()
        await first.aclose()
        await trio.testing.wait_all_tasks_blocked()
        await talk(peer)
        async with RawPeer(await trio.testing.open_stream_to_socket_listener(second)) as other:
            await other.request()
            await talk(other)
        (record,) = caplog.records
        assert (record.name, record.levelno) == ("trio_ws.server", logging.WARNING)
        await peer.aclose()
        nursery.cancel_scope.cancel()


async def test_listeners_are_closed_first_when_the_server_is_cancelled(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Nobody queues at a server that is only seeing its connections out."""
    listener = MemoryListener()
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_listeners, echo, [listener])
        peer = RawPeer(listener.connect())
        await peer.request()
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await peer.expect_close(1001)
            assert listener.closed


# -- caps ----------------------------------------------------------------------------------------


@pytest.mark.row("E12")
async def test_the_cap_counts_silent_streams_and_refuses_the_rest_with_503() -> None:
    listener = MemoryListener()
    async with serving(listener, limits=Limits(max_connections=3)):
        peers = [RawPeer(listener.connect()) for _ in range(2)]
        for peer in peers:
            await peer.request()
        silent = listener.connect()
        await trio.testing.wait_all_tasks_blocked()
        extra = listener.connect()
        await extra.send_all(upgrade_head())
        answer = await extra.receive_some()
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nRetry-After: " in answer
        await extra.aclose()
        await silent.aclose()
        await trio.testing.wait_all_tasks_blocked()
        peers.append(RawPeer(listener.connect()))
        await peers[-1].request()
        for peer in peers:
            await talk(peer)


@pytest.mark.row("E12")
async def test_64_more_are_held_to_be_told_then_accepting_waits() -> None:
    listener, other = MemoryListener(), MemoryListener()
    async with trio.open_nursery() as nursery:

        async def run(task_status: trio.TaskStatus[Server]) -> None:
            await serve_listeners(
                echo,
                [listener, other],
                limits=Limits(max_connections=1),
                task_status=task_status,
            )

        await nursery.start(run)
        streams = [listener.connect() for _ in range(100)]
        await trio.testing.wait_all_tasks_blocked()
        assert listener.accepts == 65
        latecomer = other.connect()
        await latecomer.send_all(upgrade_head())
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(0) as scope:
            await latecomer.receive_some()
        assert scope.cancelled_caught, "in hand, not served"
        for stream in streams[1:65]:
            await stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert (await latecomer.receive_some()).startswith(b"HTTP/1.1 503 ")
        assert listener.accepts >= 100
        nursery.cancel_scope.cancel()


async def test_a_stream_in_hand_is_closed_when_the_server_is_cancelled() -> None:
    listener, other = MemoryListener(), MemoryListener()
    async with trio.open_nursery() as nursery:

        async def run(task_status: trio.TaskStatus[Server]) -> None:
            limits = Limits(max_connections=1)
            await serve_listeners(echo, [listener, other], limits=limits, task_status=task_status)

        await nursery.start(run)
        streams = [listener.connect() for _ in range(65)]
        await trio.testing.wait_all_tasks_blocked()
        streams.append(other.connect())
        await trio.testing.wait_all_tasks_blocked()
        assert (listener.accepts, other.accepts) == (65, 1)
        nursery.cancel_scope.cancel()
    for stream in streams:
        assert await stream.receive_some() == b""


async def test_of_two_failures_the_first_is_raised_and_the_second_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nothing is lost: here a handler that exits when it is cancelled because a listener broke."""
    first, second = OSError(errno.EINVAL, "broken"), SystemExit(2)

    async def handler(ws: WebSocket) -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise second

    listener = MemoryListener()
    peer = RawPeer(listener.connect())

    async def client() -> None:
        await peer.request()
        listener.put(first)
        await peer.expect_close(1001)
        await peer.send_close(1001)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(client)
        with pytest.raises(OSError, match="broken") as caught:
            await serve_listeners(handler, [listener])
    assert caught.value is first
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[1] is second


async def test_an_extra_stream_is_let_in_if_there_is_room_when_it_asks() -> None:
    listener = MemoryListener()
    async with serving(listener, limits=Limits(max_connections=1)):
        first = listener.connect()
        await trio.testing.wait_all_tasks_blocked()
        second = RawPeer(listener.connect())
        await trio.testing.wait_all_tasks_blocked()
        await first.aclose()
        await trio.testing.wait_all_tasks_blocked()
        await second.request()
        await talk(second)


async def test_the_cap_per_address() -> None:
    """Counted by the address that a trusted proxy names; given back when the connection ends."""

    def head(address: str) -> list[tuple[bytes, bytes]]:
        return [(b"X-Forwarded-For", address.encode())]

    async with trio.open_nursery() as nursery:

        async def run(task_status: trio.TaskStatus[Server]) -> None:
            await serve(
                echo,
                0,
                host="127.0.0.1",
                policy=Policy(trusted_proxies=["127.0.0.0/8"]),
                limits=Limits(max_connections_per_address=1),
                task_status=task_status,
            )

        server = await nursery.start(run)

        async def dial() -> trio.SocketStream:
            return await trio.open_tcp_stream("127.0.0.1", server.port)

        async with RawPeer(await dial()) as one, RawPeer(await dial()) as two:
            await one.request(headers=head("2001:db8::1"))
            await two.request(headers=head("192.0.2.1"))
            async with await dial() as refused:
                await refused.send_all(upgrade_head(headers=head("2001:db8::2")))
                answer = await refused.receive_some()
                assert answer.startswith(b"HTTP/1.1 429 ")
                assert b"\r\nRetry-After: " in answer
            await one.send_close()
            await one.expect_close(1000)
            await one.expect_eof()
        await trio.testing.wait_all_tasks_blocked()
        async with RawPeer(await dial()) as three:
            await three.request(headers=head("2001:db8::2"))
            await talk(three)
        nursery.cancel_scope.cancel()


async def test_a_place_is_kept_while_authorize_thinks() -> None:
    """Two requests of one address in `authorize` at once do not slip past a cap of one."""
    listener = MemoryListener()
    go = trio.Event()

    async def authorize(request: UpgradeRequest) -> None:
        await go.wait()

    async with serving(listener, authorize=authorize, limits=Limits(max_connections=1)):
        first = listener.connect()
        await first.send_all(upgrade_head())
        await trio.testing.wait_all_tasks_blocked()
        second = listener.connect()
        await second.send_all(upgrade_head())
        assert (await second.receive_some()).startswith(b"HTTP/1.1 503 ")
        go.set()
        assert (await first.receive_some()).startswith(b"HTTP/1.1 101 ")


# -- the end -------------------------------------------------------------------------------------


@pytest.mark.row("D17")
@pytest.mark.parametrize("transport", ["tcp", "tls", "memory"])
@pytest.mark.parametrize("who", ["peer", "handler", "owner"])
async def test_when_both_closes_have_passed_both_sides_are_done_at_once(
    transport: str,
    who: str,
    server_ssl_context: ssl.SSLContext,
    client_ssl_context: ssl.SSLContext,
) -> None:
    """Whoever closes first; and with a handler that goes on for an hour, whose end nobody needs.
    No `close_timeout` is spent: it is an hour as well."""
    still_busy = trio.Event()

    async def handler(ws: WebSocket) -> None:
        if who == "owner":
            return
        if who == "handler":
            await ws.close(1000)
        else:
            assert (await ws.wait_closed()).code == 1000
        still_busy.set()
        await trio.sleep(3600)

    memory, sockets = MemoryListener(), await open_tcp_listeners(0, host="127.0.0.1")
    tls = server_ssl_context if transport == "tls" else None
    async with trio.open_nursery() as nursery:

        async def run(task_status: trio.TaskStatus[Server]) -> None:
            await serve_listeners(
                handler,
                [memory, *sockets],
                ssl_context=tls,
                limits=Limits(close_timeout=3600),
                task_status=task_status,
            )

        server = await nursery.start(run)
        stream: trio.abc.Stream = memory.connect()
        if transport != "memory":
            stream = await trio.open_tcp_stream("127.0.0.1", server.port)
        if transport == "tls":
            stream = trio.SSLStream(
                stream, client_ssl_context, server_hostname="localhost", https_compatible=True
            )
        with trio.fail_after(30):
            async with RawPeer(stream) as peer:
                await peer.request()
                if who == "peer":
                    await peer.send_close(1000)
                    await peer.expect_close(1000)
                else:
                    await peer.expect_close(1000)
                    await peer.send_close(1000)
                await peer.expect_eof()
            if who != "owner":
                await still_busy.wait()
        nursery.cancel_scope.cancel()


# -- the access log ------------------------------------------------------------------------------


async def test_the_access_log_has_one_line_for_each_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "trio_ws.access")
    listener = MemoryListener()
    async with serving(listener):
        peer = RawPeer(listener.connect())
        await peer.request("/x?secret")
        await peer.send_close(4000)
        await peer.expect_close(4000)
        await trio.testing.wait_all_tasks_blocked()
        (record,) = caplog.records
        assert "GET /x -> 101, closed 4000 after" in record.getMessage()
        assert "secret" not in record.getMessage()


def test_a_busy_port_is_an_oserror() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:

        async def main() -> None:
            await serve(echo, taken.getsockname()[1], host="127.0.0.1")

        with pytest.raises(OSError, match="in use"):
            trio.run(main)
