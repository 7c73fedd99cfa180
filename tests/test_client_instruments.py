"""Instruments of a client are told what those of a server are, and can do no harm.

Lives here: `instruments=` of `connect`, `connect_stream` and `reconnect`. Must never live here: the
events themselves (test_instruments).
"""

from __future__ import annotations

import gc
import logging
from typing import Any

import pytest
import trio
import trio.testing

from trio_ws import ConnectionLost, Instrument, WebSocket, connect_stream, reconnect, serve
from trio_ws.testing import CONTINUATION, TEXT

from .client_world import URL, conversation, server_and_stream
from .instruments_world import Recorder


class ClientRecorder(Recorder):
    def handshake_decided(self, request: Any, answer: Any) -> None:
        raise AssertionError("clients are told by connect itself")

    def opened(self, ws: WebSocket) -> None:
        assert ws.response is not None
        super().opened(ws)


class Faulty(Instrument):
    def __init__(self) -> None:
        self.calls = 0

    def opened(self, ws: WebSocket) -> None:
        self.calls += 1
        raise KeyError("mine")


async def test_a_life_is_told_from_its_opening_to_its_end(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """Whole messages and messages in pieces, both ways; sizes are bytes of payload."""
    recorder = ClientRecorder()
    async with conversation(nursery, instruments=[recorder]) as (ws, server):
        await ws.send("häh")
        async with ws.message_writer("binary") as out:
            await out.send(b"1")
            await out.send(b"23")
        await server.send_message(b"12")
        await ws.receive()
        await server.send_frame(TEXT, b"ab", fin=False)
        await server.send_frame(CONTINUATION, b"cd")
        async with ws.message_reader() as chunks:
            assert "".join([str(chunk) async for chunk in chunks]) == "abcd"
        await server.send_close(4000)
        await ws.wait_closed()
        assert recorder.told == [
            ("opened", "/chat"),
            ("sent", 4, "text"),
            ("sent", 3, "binary"),
            ("received", 2, "binary"),
            ("received", 4, "text"),
            ("closed", 4000, "peer", type(None)),
        ]
    assert len(recorder.told) == 6


async def test_the_end_is_told_however_the_block_ends(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """By cancellation with a server that does not answer; and by a server that is gone."""
    recorder = ClientRecorder()
    with trio.CancelScope() as scope:
        async with conversation(nursery, instruments=[recorder]) as (_, server):
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert recorder.told[1:] == [("closed", 1006, "nobody", type(None))]

    recorder = ClientRecorder()
    with pytest.raises(ConnectionLost):
        async with conversation(nursery, instruments=[recorder]) as (ws, server):
            await trio.aclose_forcefully(server.stream)
            await ws.receive()
    assert [told[0] for told in recorder.told] == ["opened", "closed"]


async def test_what_fails_to_open_was_never_open() -> None:
    """No `opened`, so no `closed`."""
    recorder = ClientRecorder()
    server, stream = server_and_stream()
    await trio.aclose_forcefully(server.stream)
    with pytest.raises(Exception, match="handshake|failed|closed|ended"):
        async with connect_stream(stream, URL, instruments=[recorder]):
            raise AssertionError("it opened")
    assert recorder.told == []


async def test_each_connection_of_a_reconnect_is_told_and_a_fault_is_logged_once(
    nursery: trio.Nursery, mock_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The faulty one is called no more by this `reconnect`; the other goes on."""
    mock_clock.autojump_threshold = 0.005  # real sockets: the kernel may be late
    served = await nursery.start(serve, _leave, 0)
    recorder, faulty = ClientRecorder(), Faulty()
    url = f"ws://127.0.0.1:{served.port}/"
    with caplog.at_level(logging.ERROR):
        async with reconnect(url, proxy=None, instruments=[faulty, recorder]) as connections:
            count = 0
            async for ws in connections:
                await ws.wait_closed()
                count += 1
                if count == 2:
                    break
    assert faulty.calls == 1
    assert [record.getMessage() for record in caplog.records] == [
        f"the instrument {faulty!r} failed and is called no more"
    ]
    life = [("opened", "/"), ("closed", 1000, "peer", type(None))]
    assert recorder.told == life * 2
    nursery.cancel_scope.cancel()


async def _leave(ws: WebSocket) -> None:
    """A handler that has nothing to say."""


async def test_a_connection_that_was_watched_is_not_left_to_the_garbage_collector(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """It may hold a megabyte, and the collector counts objects."""
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        async with conversation(nursery, instruments=[ClientRecorder()]) as (ws, server):
            await server.send_close(1000)
            await ws.wait_closed()
        del ws
        gc.collect()
        assert not [thing for thing in gc.garbage if isinstance(thing, WebSocket)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
