"""The opening handshake over real sockets: one request after another, good and bad, to one server.

Each test ends with a good connection to the same server: whatever came before, it lives.
"""

from __future__ import annotations

import random
import socket
import struct
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import trio
import trio.testing

from trio_ws import (
    Accept,
    Instrument,
    Limits,
    Policy,
    Response,
    Server,
    UpgradeRequest,
    WebSocket,
    serve,
)
from trio_ws._response import Refusal
from trio_ws.testing import TEXT, RawPeer, encode_frame, upgrade_head

FRAME = encode_frame(TEXT, b"hello", masked=True)
GOOD_KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
PLAIN = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def echo(ws: WebSocket) -> None:
    async for message in ws:
        await ws.send(message)


async def page(request: UpgradeRequest) -> Response:
    return Response(200, body=b"a page")


class Running:
    """A server, and what tests do to it."""

    def __init__(self, server: Server) -> None:
        self.server = server

    async def dial(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.server.port)

    async def answer(self, request: bytes) -> tuple[int, bytes, bytes]:
        """Send `request`, read to the end (the server's, or what a 101 brings): status, head,
        body. A reset would be an error here: the answer must be readable."""
        with trio.fail_after(10):
            async with await self.dial() as stream:
                await stream.send_all(request)
                received = b""
                while data := await stream.receive_some():
                    received += data
                    if received.startswith(b"HTTP/1.1 101 ") and b"\r\n\r\n" in received:
                        break
        head, _, body = received.partition(b"\r\n\r\n")
        return int(head.split(b" ")[1]), head + b"\r\n", body

    async def is_alive(self) -> None:
        with trio.fail_after(10):
            async with RawPeer(await self.dial()) as peer:
                await peer.request()
                await peer.send_message("hello")
                assert await peer.receive_message() == "hello"


@pytest.fixture
async def running(nursery: trio.Nursery) -> Running:
    return await start(nursery)


async def start(nursery: trio.Nursery, **options: object) -> Running:
    async def run(task_status: trio.TaskStatus[Server]) -> None:
        options.setdefault("limits", Limits(cancel_grace=0))
        await serve(echo, 0, host="127.0.0.1", task_status=task_status, **options)  # type: ignore[arg-type]

    return Running(await nursery.start(run))


def head(*, omit: list[bytes] | None = None, **headers: bytes) -> bytes:
    """A good request with these headers instead of, or besides, the usual ones."""
    pairs = [(name.replace("_", "-").encode(), value) for name, value in headers.items()]
    return upgrade_head(headers=pairs, omit=[name for name, _ in pairs] + (omit or []))


def twice(name: bytes, first: bytes, second: bytes) -> bytes:
    return upgrade_head(headers=[(name, first), (name, second)], omit=[name])


REFUSED = [
    ("A1", head(Host=b"\xff"), 400, b""),
    ("A1", head(Host=b"xn--\xff.example"), 400, b""),
    ("A1", head(Host=b"xn--a-ecp.ru:99999999"), 400, b""),
    ("A2", head(Connection=b"Upgrade, \xff"), 400, b""),
    ("A3", head(Sec_WebSocket_Protocol=b"\xff"), 400, b""),
    ("A3", head(Sec_WebSocket_Protocol=b"a b"), 400, b""),
    ("A5", head(omit=[b"Sec-WebSocket-Key"]), 400, b""),
    ("A5", head(Sec_WebSocket_Key=b"AAAAAAAAAAAAAAAAAAAA"), 400, b""),
    ("A5", head(Sec_WebSocket_Key=b"AAAAAAAAAAAAAAAAAAAAAB=="), 400, b""),
    ("A5", head(Sec_WebSocket_Key=b"not base64"), 400, b""),
    ("A5", twice(b"Sec-WebSocket-Key", GOOD_KEY, GOOD_KEY), 400, b""),
    ("A6", head(Sec_WebSocket_Version=b"12"), 426, b"Sec-WebSocket-Version: 13"),
    ("A6", head(Sec_WebSocket_Version=b"13, 8"), 426, b"Sec-WebSocket-Version: 13"),
    ("A6", twice(b"Sec-WebSocket-Version", b"13", b"13"), 426, b"Sec-WebSocket-Version: 13"),
    ("A6", head(omit=[b"Sec-WebSocket-Version"]), 426, b"Sec-WebSocket-Version: 13"),
    ("A7", upgrade_head(version=b"HTTP/1.0"), 505, b""),
    ("A7", upgrade_head(version=b"HTTP/1.9"), 505, b""),
    ("A7", upgrade_head(version=b"HTTP/2.0"), 505, b""),
    ("A7", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, b""),
    ("A8", upgrade_head(method=b"POST"), 405, b"Allow: GET"),
    ("A8", upgrade_head(method=b"PUT"), 405, b"Allow: GET"),
    ("A8", upgrade_head(method=b"HEAD"), 405, b"Allow: GET"),
    ("A8", PLAIN, 426, b"Upgrade: websocket"),
    ("A8", PLAIN.replace(b"GET", b"HEAD"), 405, b"Allow: GET"),
    ("A9", head(omit=[b"Host"]), 400, b""),
    ("A9", twice(b"Host", b"localhost", b"localhost"), 400, b""),
    ("A9", head(Host=b""), 400, b""),
    ("A9", head(Host=b"a@b/c"), 400, b""),
    ("A12", head(Content_Length=b"5"), 400, b""),
    ("A12", head(Content_Length=b"5") + b"hello", 400, b""),
    ("A12", head(Transfer_Encoding=b"chunked") + b"5\r\nhello\r\n0\r\n\r\n", 400, b""),
    ("A12", head(Content_Length=b"5", Transfer_Encoding=b"chunked") + FRAME, 400, b""),
    ("A12", head(Expect=b"100-continue"), 400, b""),
    ("A15", head(X=b"a" * 20_000), 431, b""),
    ("A15", upgrade_head(headers=[(b"X", b"a")] * 200), 431, b""),
    ("A15", upgrade_head(b"/" + b"a" * 9000), 414, b""),
    ("A18", upgrade_head().replace(b"\r\n", b"\n"), 400, b""),
    ("A18", upgrade_head(headers=[(b"X", b"a\nY: b")]), 400, b""),
    ("A18", upgrade_head(headers=[(b"X", b"a\rY: b")]), 400, b""),
    ("A18", upgrade_head(headers=[(b"X", b"a\0b")]), 400, b""),
    ("A18", upgrade_head(headers=[(b"X", b"a\r\n b")]), 400, b""),
    ("A18", upgrade_head(headers=[(b"X ", b"a")]), 400, b""),
    ("B3", twice(b"Origin", b"http://localhost", b"http://localhost"), 400, b""),
    ("B3", head(Origin=b"http://\r\n localhost"), 400, b""),
]


@pytest.mark.row("A1", "A2", "A3", "A5", "A6", "A7", "A8", "A9", "A12", "A15", "A18", "B3")
@pytest.mark.parametrize(
    ("request_", "status", "header"),
    [case[1:] for case in REFUSED],
    ids=[f"{case[0]}-{number}" for number, case in enumerate(REFUSED)],
)
async def test_a_bad_request_gets_a_whole_response_and_the_connection_ends(
    running: Running, request_: bytes, status: int, header: bytes
) -> None:
    """Status, reason, length, `Connection: close`, a body of that length; then the end. Frames
    behind it, as from a client that does not wait, change nothing."""
    for follow_up in (b"", FRAME * 10):
        got, head_, body = await running.answer(request_ + follow_up)
        assert got == status
        assert b"\r\n" + header in head_
        assert b"\r\nDate: " in head_
        assert b"\r\nConnection: " in head_
        assert b"close\r\n" in head_
        if request_.startswith(b"HEAD "):
            assert body == b""
        else:
            assert f"\r\nContent-Length: {len(body)}\r\n".encode() in head_
            assert str(status).encode() in body
        if status == 426:
            assert b"\r\nConnection: Upgrade, close\r\n" in head_
    await running.is_alive()


@pytest.mark.row("A8")
async def test_connect_is_refused(running: Running) -> None:
    """Whichever row is first to object (its target is no path), the answer is whole."""
    status, _, _ = await running.answer(upgrade_head(b"localhost:80", method=b"CONNECT"))
    assert status in {400, 405}
    await running.is_alive()


@pytest.mark.row("A8")
async def test_with_http_plain_requests_are_answered_and_others_405(nursery: trio.Nursery) -> None:
    running = await start(nursery, http=page)
    status, head_, body = await running.answer(PLAIN)
    assert (status, body) == (200, b"a page")
    status, head_, body = await running.answer(PLAIN.replace(b"GET", b"HEAD"))
    assert (status, body) == (200, b"")
    assert b"\r\nContent-Length: 6\r\n" in head_
    for method in (b"POST", b"PUT"):
        status, head_, _ = await running.answer(PLAIN.replace(b"GET", method))
        assert status == 405
        assert b"\r\nAllow: GET, HEAD\r\n" in head_
    await running.is_alive()


@pytest.mark.row("A10")
async def test_a_host_that_is_not_ours_is_421_for_upgrades_and_pages(
    nursery: trio.Nursery,
) -> None:
    running = await start(nursery, http=page, policy=Policy(hosts=["localhost"]))
    for request in (
        upgrade_head(host=b"evil.example"),
        PLAIN.replace(b"localhost", b"evil.example"),
    ):
        status, _, body = await running.answer(request)
        assert status == 421
        assert b"a page" not in body
    assert (await running.answer(PLAIN))[0] == 200
    await running.is_alive()


@pytest.mark.row("A11", "A3")
@pytest.mark.parametrize(
    "request_",
    [
        twice(b"Connection", b"keep-alive", b"Upgrade"),
        head(Connection=b"keep-alive , ,UPGRADE"),
        head(Upgrade=b"WebSocket"),
        head(Upgrade=b"websocket, h2c"),
        twice(b"Upgrade", b"h2c", b"websocket"),
        head(Sec_WebSocket_Protocol=b"a,,b"),
        head(Content_Length=b"0"),
        upgrade_head(b"http://localhost/path"),
    ],
    ids=range(8),
)
async def test_lists_are_lists_however_they_are_written(running: Running, request_: bytes) -> None:
    status, _, _ = await running.answer(request_)
    assert status == 101


@pytest.mark.row("A4")
@pytest.mark.parametrize(
    "offer",
    [
        b"permessage-deflate; client_max_window_bits=abc",
        b"permessage-deflate; server_max_window_bits=99",
        b"permessage-deflate; unknown",
        b"permessage-deflate; client_max_window_bits; client_max_window_bits",
        b'permessage-deflate; server_max_window_bits="10"',
        b'permessage-deflate; server_max_window_bits="10',
        b"\xff, ;;=,",
    ],
)
async def test_extension_offers_are_declined_and_never_fatal(
    running: Running, offer: bytes
) -> None:
    status, head_, _ = await running.answer(head(Sec_WebSocket_Extensions=offer))
    assert status == 101
    assert b"extensions" not in head_.lower()


@pytest.mark.row("A13")
async def test_a_frame_glued_to_the_request_is_delivered(running: Running) -> None:
    """200 times: in one segment, and cut in two at a random place."""
    cuts = random.Random(6455)
    for run in range(200):
        async with RawPeer(await running.dial()) as peer:
            data = upgrade_head(b"/%d" % run) + FRAME
            cut = cuts.randrange(1, len(data)) if run % 2 else len(data)
            await peer.send_raw(data[:cut])
            await trio.lowlevel.checkpoint()
            await peer.send_raw(data[cut:])
            with trio.fail_after(10):
                assert (await peer.receive_head()).startswith(b"HTTP/1.1 101 ")
                assert await peer.receive_message() == "hello"


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="counts /proc/self/fd")


@pytest.mark.row("A16")
@needs_proc
async def test_slow_and_silent_clients_are_gone_at_the_deadline(nursery: trio.Nursery) -> None:
    """The raw twin of the mock-clock tests: 408, or nothing within TLS, and the descriptor free."""
    limits = Limits(handshake_timeout=0.2, close_timeout=0.2, cancel_grace=0)
    running = await start(nursery, limits=limits)
    before = open_descriptors()
    for silent in (True, False):
        async with await running.dial() as stream:
            with trio.fail_after(10):
                if not silent:
                    for byte in upgrade_head()[:3]:
                        await stream.send_all(bytes([byte]))
                        await trio.sleep(0.05)
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 408 ")
                assert await stream.receive_some() == b""
    await until_free(before)
    await running.is_alive()


@pytest.mark.row("A17")
@needs_proc
async def test_clients_that_leave_in_the_handshake_cost_nothing(running: Running) -> None:
    """A hundred FINs and a hundred RSTs, at every stage of a request: all descriptors are free
    again at once; the bound is generous."""
    await running.is_alive()
    before = open_descriptors()
    request = upgrade_head() + FRAME
    for number in range(200):
        stream = await running.dial()
        await stream.send_all(request[: number * len(request) // 200])
        if number % 2:  # an RST instead of a FIN
            linger = struct.pack("ii", 1, 0)
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        await stream.aclose()
    await until_free(before)
    await running.is_alive()


async def until_free(before: int, seconds: float = 10) -> None:
    with trio.fail_after(seconds):
        while open_descriptors() > before:
            await trio.sleep(0.01)


@pytest.mark.row("D11")
async def test_a_half_close_behind_a_message_still_gets_the_reply(running: Running) -> None:
    async with RawPeer(await running.dial()) as peer:
        await peer.request()
        await peer.send_message("hello")
        await peer.send_eof()
        with trio.fail_after(10):
            assert await peer.receive_message() == "hello"
            await peer.read_to_end()


@pytest.mark.row("A23")
async def test_a_big_upload_to_a_refusing_server_still_reads_the_refusal(
    running: Running,
) -> None:
    """100 KB behind a refused head: drained, so that no reset overtakes the response."""
    status, _, _ = await running.answer(head(Content_Length=b"100000") + b"x" * 100_000)
    assert status == 400
    await running.is_alive()


class Answers(Instrument):
    """Waits for the first answer to a handshake."""

    def __init__(self) -> None:
        self.answered = trio.Event()
        self.answer: Accept | Response | None = None

    def handshake_decided(self, request: UpgradeRequest | None, answer: Accept | Response) -> None:
        self.answer = answer
        self.answered.set()


MORE_THAN_BUFFERS_HOLD = 32 * 1024 * 1024


async def long_answer(request: UpgradeRequest) -> Accept:
    return Accept(headers=[("X", "a" * MORE_THAN_BUFFERS_HOLD)])


async def test_an_answer_longer_than_the_socket_takes_arrives_whole(
    nursery: trio.Nursery,
) -> None:
    """The 101 is written as the client reads it; the frames come behind it."""
    running = await start(nursery, authorize=long_answer)
    with trio.fail_after(30):
        async with await running.dial() as stream:
            await stream.send_all(upgrade_head() + FRAME)
            received = bytearray()
            while not received.endswith(b"\r\n\r\n\x81\x05hello"):
                data = await stream.receive_some()
                assert data
                received += data
    assert received.startswith(b"HTTP/1.1 101 ")
    assert received.count(b"a") > MORE_THAN_BUFFERS_HOLD


async def test_an_answer_that_is_not_read_ends_at_the_deadline(nursery: trio.Nursery) -> None:
    """The raw twin: the client hears nothing but a part of its 101, and the end."""
    seen = Answers()
    limits = Limits(handshake_timeout=0.2, cancel_grace=0)
    running = await start(nursery, authorize=long_answer, limits=limits, instruments=[seen])
    with trio.fail_after(30):
        async with await running.dial() as stream:
            await stream.send_all(upgrade_head())
            await seen.answered.wait()
            assert isinstance(seen.answer, Refusal)
            assert seen.answer.row == "deadline"
            size = 0
            with suppress(trio.BrokenResourceError):
                while data := await stream.receive_some():
                    size += len(data)
            assert 0 < size < MORE_THAN_BUFFERS_HOLD


@pytest.mark.parametrize("begun", [b"", b"GET / HT"])
async def test_a_drain_answers_whoever_is_in_the_handshake(
    nursery: trio.Nursery, begun: bytes
) -> None:
    running = await start(nursery)
    with trio.fail_after(10):
        async with await running.dial() as stream:
            await stream.send_all(begun)
            while not running.server.stats().handshaking:
                await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(running.server.drain, 5)
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 503 ")
