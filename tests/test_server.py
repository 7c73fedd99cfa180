"""`Server` and its doors: what they report, over TCP, TLS and unix sockets, and how they end.

Lives here: the good cases. Must never live here: faults of handlers (test_server_isolation), of
listeners (test_server_accepting), caps (test_server_caps).
"""

from __future__ import annotations

import logging
import socket
import ssl
import sys
from pathlib import Path

import pytest
import trio
import trio.testing

from trio_ws import (
    Limits,
    Routes,
    Server,
    WebSocket,
    open_tcp_listeners,
    open_unix_listener,
    serve,
    serve_listeners,
    serve_stream,
)
from trio_ws.testing import RawPeer, upgrade_head

from .server_world import MemoryListener, echo, serving, talk

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
