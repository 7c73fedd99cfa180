"""Instruments are told what happens, once each, and can do no harm."""

from __future__ import annotations

import logging
import socket
import struct
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from trio_ws import (
    ConnectionLost,
    Instrument,
    Response,
    Room,
    UpgradeRequest,
    WebSocket,
    serve_stream,
)
from trio_ws.testing import CONTINUATION, TEXT, upgrade_head

from .instruments_world import Recorder


async def echo(ws: WebSocket) -> None:
    async for message in ws:
        await ws.send(message)


async def test_a_life_is_told_from_its_handshake_to_its_end(served: Any) -> None:
    """Sizes are bytes of payload, of UTF-8 for text."""
    recorder = Recorder()
    await served.start(instruments=[recorder])
    (peer,) = await served.peers(1)
    await peer.send_message("häh")
    await peer.receive_message()
    await peer.send_message(b"12")
    await peer.receive_message()
    await peer.send_close(4000)
    await peer.expect_close(4000)
    assert recorder.told == [
        ("decided", "/", 101),
        ("opened", "/"),
        ("received", 4, "text"),
        ("sent", 4, "text"),
        ("received", 2, "binary"),
        ("sent", 2, "binary"),
        ("closed", 4000, "peer", type(None)),
    ]
    served.scope.cancel()


async def test_a_message_whose_send_raised_is_not_told() -> None:
    """The kernel refuses it: the end is told, and nothing behind it."""
    recorder, refused = Recorder(), trio.Event()

    async def handler(ws: WebSocket) -> None:
        await refused.wait()
        with pytest.raises(ConnectionLost):
            await ws.send("x")

    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener, trio.open_nursery() as nursery:
        client = await trio.testing.open_stream_to_socket_listener(listener)
        server = await listener.accept()
        nursery.start_soon(partial(serve_stream, handler, server, instruments=[recorder]))
        await client.send_all(upgrade_head("/"))
        await client.receive_some()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.socket.close()
        await trio.lowlevel.wait_readable(server.socket)
        refused.set()
    assert [told[0] for told in recorder.told] == ["decided", "opened", "closed"]


async def test_refusals_and_pages_are_decided_handshakes(served: Any) -> None:
    async def page(request: UpgradeRequest) -> Response:
        return Response(200)

    recorder = Recorder()
    await served.start(instruments=[recorder], http=page)
    for head in (
        b"nonsense\r\n\r\n",
        b"GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n",
        upgrade_head("/x", headers=[(b"Origin", b"https://evil.example")]),
    ):
        stream = served.listener.connect()
        await stream.send_all(head)
        await stream.receive_some()
        await stream.aclose()
    assert recorder.told == [
        ("decided", None, 400),
        ("decided", "/page", 200),
        ("decided", "/x", 403),
    ]
    served.scope.cancel()


async def test_messages_in_pieces_are_told_once_each(served: Any) -> None:
    """A written one when it is complete, a read one when its block is left, with what was read."""

    async def handler(ws: WebSocket) -> None:
        async with ws.message_reader() as chunks:
            async for _ in chunks:
                pass
        async with ws.message_writer("text") as out:
            await out.send("ä")
            await out.send("b")
        with pytest.raises(RuntimeError):
            async with ws.message_writer("binary") as out:
                raise RuntimeError("before the first piece")

    recorder = Recorder()
    await served.start(handler, instruments=[recorder])
    (peer,) = await served.peers(1)
    await peer.send_frame(TEXT, b"abc", fin=False)
    await peer.send_frame(CONTINUATION, b"de")
    assert await peer.receive_message() == "äb"
    await peer.expect_close(1000)
    assert recorder.told[2:] == [("received", 5, "text"), ("sent", 3, "text")]
    served.scope.cancel()


async def test_a_message_in_pieces_is_told_before_an_end_that_comes_behind_it() -> None:
    """The kernel takes its last piece, and refuses what a room has behind it."""
    recorder, room = Recorder(), Room()
    writing, client_gone = trio.Event(), trio.Event()

    async def handler(ws: WebSocket) -> None:
        async with room.join(ws), ws.message_writer("text") as out:
            await out.send("pieces")
            room.publish("behind it")
            writing.set()
            await client_gone.wait()

    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener, trio.open_nursery() as nursery:
        client = await trio.testing.open_stream_to_socket_listener(listener)
        server = await listener.accept()
        nursery.start_soon(partial(serve_stream, handler, server, instruments=[recorder]))
        await client.send_all(upgrade_head("/"))
        await writing.wait()
        seen = b""
        while not seen.endswith(b"pieces"):
            seen += await client.receive_some()
        client.socket.close()
        await trio.lowlevel.wait_readable(server.socket)
        client_gone.set()
    sent, *_, closed = recorder.told[2:]
    assert sent == ("sent", len("pieces"), "text")
    assert closed[0] == "closed"


@pytest.mark.parametrize("how", ["broken", "owner", "handler"])
async def test_every_end_is_told_once_with_its_cause(
    served: Any, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(ws: WebSocket) -> None:
        if how == "handler":
            await ws.close(4321)
        elif how == "broken":
            await echo(ws)

    recorder = Recorder()
    await served.start(handler, instruments=[recorder])
    (peer,) = await served.peers(1)
    if how == "broken":
        await peer.aclose()
    else:
        frame = await peer.expect_close()
        await peer.send_close(frame.close_code)
    await trio.testing.wait_all_tasks_blocked()
    expected = {
        "broken": ("closed", 1006, "nobody", type(None)),
        "owner": ("closed", 1000, "local", type(None)),
        "handler": ("closed", 4321, "local", type(None)),
    }
    assert [told for told in recorder.told if told[0] == "closed"] == [expected[how]]
    served.scope.cancel()


async def test_the_cause_of_a_loss_is_told(
    served: Any, autojump_clock: trio.testing.MockClock
) -> None:
    from trio_ws import Limits

    recorder = Recorder()
    await served.start(instruments=[recorder], limits=Limits())
    (peer,) = await served.peers(1)
    await trio.sleep(60)
    kind, code, _, cause = recorder.told[-1]
    assert (kind, code) == ("closed", 1006)
    assert issubclass(cause, TimeoutError)
    await peer.aclose()
    served.scope.cancel()


async def test_an_instrument_that_raises_is_reported_once_and_removed(
    served: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The connection, and the instrument beside it, do not notice."""

    class Broken(Recorder):
        def message_received(self, ws: WebSocket, size: int, kind: str) -> None:
            super().message_received(ws, size, kind)
            raise RuntimeError("a bug")

    before, broken, after = Recorder(), Broken(), Recorder()
    await served.start(instruments=(before, broken, after))
    peers = await served.peers(2)
    for peer in peers * 2:
        await peer.send_message("hello")
        assert await peer.receive_message() == "hello"
    assert broken.told[-1] == ("received", 5, "text")
    assert len(broken.told) == 5
    assert before.told == after.told
    assert len(before.told) == 4 + 8
    (record,) = caplog.records
    assert record.name == "trio_ws.server"
    assert record.levelno == logging.ERROR
    assert "Broken" in record.getMessage()
    served.scope.cancel()


async def test_only_what_is_overridden_is_called(served: Any) -> None:
    """In trio's manner; also of an instance that got its method later."""
    closes: list[int] = []

    class Base(Instrument):
        def __getattribute__(self, name: str) -> Any:
            return super().__getattribute__(name)

    instrument = Base()
    instrument.closed = lambda ws, close, cause: closes.append(close.code)  # type: ignore[method-assign]
    await served.start(instruments=[instrument, Instrument()])
    (peer,) = await served.peers(1)
    await peer.send_close(4005)
    await peer.expect_close()
    assert closes == [4005]
    served.scope.cancel()


async def test_what_is_no_instrument_is_refused() -> None:
    _, theirs = trio.testing.memory_stream_pair()
    with pytest.raises(TypeError, match="instruments"):
        await serve_stream(echo, theirs, instruments=[object()])  # type: ignore[list-item]
