"""One connection's misfortune is no other's; what ends the server comes out bare, all being told.

Lives here: handlers that crash, interrupts, what is left behind. Must never live here: hostile
bytes (test_hostile_peers).
"""

from __future__ import annotations

import errno
import logging
import signal
import sys

import pytest
import trio
import trio.testing

from trio_ws import WebSocket, serve_listeners
from trio_ws.testing import RawPeer, upgrade_head

from .server_world import MemoryListener, echo, serving, talk


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
