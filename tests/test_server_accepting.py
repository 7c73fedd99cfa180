"""Listeners that fail: waited out, told apart, closed first.

Lives here: `accept` and its errors. Must never live here: how many are let in (test_server_caps).
"""

from __future__ import annotations

import errno
import logging

import pytest
import trio
import trio.testing

from trio_ws import Server, serve, serve_listeners
from trio_ws.testing import RawPeer

from .server_world import MemoryListener, echo, talk


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
