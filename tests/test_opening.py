"""The I/O of one opening handshake: deadlines, refusals that arrive, user hooks, silence."""

from __future__ import annotations

import logging
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_ws import (
    Accept,
    Limits,
    Policy,
    Response,
    UpgradeRequest,
    WebSocket,
    allow_origins,
    serve_stream,
)
from trio_ws.testing import BreakingStream, RawPeer, StallingStream, upgrade_head

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LIMITS = Limits(handshake_timeout=10, close_timeout=5)


class Served:
    """One `serve_stream` and its client's end of the stream."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.peer = RawPeer(stream)
        self.scope = trio.CancelScope()
        self.done_at: float | None = None

    async def answer(self, request: bytes = b"") -> tuple[bytes, bytes]:
        """Send `request`; return head and body of what comes until the end."""
        if request:
            await self.stream.send_all(request)
        received = b""
        while data := await self.stream.receive_some():
            received += data
        head, _, body = received.partition(b"\r\n\r\n")
        return head, body


async def echo(ws: WebSocket) -> None:
    async for message in ws:
        await ws.send(message)


@asynccontextmanager
async def served(
    wrap: Any = lambda stream: stream, handler: Any = echo, **options: Any
) -> AsyncIterator[Served]:
    """`serve_stream` over memory; leaving waits for its end."""
    ours, theirs = trio.testing.memory_stream_pair()
    client = Served(ours)
    options.setdefault("limits", LIMITS)

    async def run() -> None:
        with client.scope:
            await serve_stream(handler, wrap(theirs), **options)
        client.done_at = trio.current_time()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        yield client


# -- the deadline --------------------------------------------------------------------------------


@pytest.mark.row("A16")
async def test_a_silent_client_is_told_408_at_the_deadline_exactly(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with served() as client:
        began = trio.current_time()
        head, body = await client.answer()
        assert head.startswith(b"HTTP/1.1 408 ")
        assert b"deadline" in body
        assert trio.current_time() - began == 10
        await client.stream.aclose()
    assert client.done_at == began + 10


@pytest.mark.row("A16")
async def test_one_byte_every_50_ms_does_not_move_the_deadline(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Slowloris: the bytes keep coming, the deadline counts from the first moment; while we drain,
    they may come on until `close_timeout`."""
    told_at: list[float] = []
    async with served() as client:
        began = trio.current_time()

        async def drip() -> None:
            head = upgrade_head(headers=[(b"X-Slow", b"a" * 600)])
            with pytest.raises(trio.BrokenResourceError):
                for byte in head:
                    await client.stream.send_all(bytes([byte]))
                    await trio.sleep(0.05)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(drip)
            assert (await client.stream.receive_some()).startswith(b"HTTP/1.1 408 ")
            told_at.append(trio.current_time())
    assert told_at == [pytest.approx(began + 10)]
    assert client.done_at == pytest.approx(began + 15)


@pytest.mark.row("A22", "A16")
async def test_authorize_that_hangs_is_503_at_the_deadline_exactly(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def authorize(request: UpgradeRequest) -> None:
        await trio.sleep_forever()

    async with served(authorize=authorize) as client:
        began = trio.current_time()
        await trio.sleep(4)  # what the head took counts
        head, _ = await client.answer(upgrade_head())
        assert head.startswith(b"HTTP/1.1 503 ")
        assert trio.current_time() - began == 10
        await client.stream.aclose()


@pytest.mark.row("A22")
@pytest.mark.parametrize("how", ["swallows", "shields"])
async def test_authorize_cannot_outlive_the_deadline(
    how: str, autojump_clock: trio.testing.MockClock
) -> None:
    """An answer that comes after the deadline opens nothing."""

    async def authorize(request: UpgradeRequest) -> None:
        if how == "shields":
            with trio.CancelScope(shield=True):
                await trio.sleep(20)
        else:
            with trio.move_on_after(20):
                try:
                    await trio.sleep_forever()
                except trio.Cancelled:
                    return

    async with served(authorize=authorize) as client:
        head, _ = await client.answer(upgrade_head())
        assert head.startswith(b"HTTP/1.1 503 ")
        await client.stream.aclose()


@pytest.mark.row("A16")
async def test_a_client_that_does_not_read_its_101_is_dropped_at_the_deadline(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Half a 101 may be on the wire: nothing else may follow it."""
    async with served(wrap=lambda stream: StallingStream(stream, after=20)) as client:
        began = trio.current_time()
        head, body = await client.answer(upgrade_head())
        assert head + body == b"HTTP/1.1 101 Switchi"
        assert trio.current_time() - began == 10


@pytest.mark.row("A16")
async def test_tls_counts_into_the_deadline(
    server_ssl_context: ssl.SSLContext, autojump_clock: trio.testing.MockClock
) -> None:
    """A client that stops within the TLS handshake is dropped; there is no way to tell it more."""
    tls = lambda stream: trio.SSLStream(stream, server_ssl_context, server_side=True)  # noqa: E731
    async with served(wrap=tls) as client:
        began = trio.current_time()
        await client.stream.send_all(b"\x16\x03\x01")
        assert await client.answer() == (b"", b"")
    assert client.done_at == began + 10


async def test_one_handshake_over_tls(
    server_ssl_context: ssl.SSLContext, client_ssl_context: ssl.SSLContext
) -> None:
    """`request.tls` is true, a refusal arrives whole, and a connection works."""
    seen: list[UpgradeRequest] = []

    async def authorize(request: UpgradeRequest) -> Response | None:
        seen.append(request)
        return Response(402, body=b"pay") if request.path == "/shop" else None

    def tls(stream: trio.abc.Stream) -> trio.abc.Stream:
        return trio.SSLStream(stream, server_ssl_context, server_side=True, https_compatible=True)

    for path in ("/shop", "/"):
        async with served(wrap=tls, authorize=authorize) as client:
            stream = trio.SSLStream(
                client.stream,
                client_ssl_context,
                server_hostname="localhost",
                https_compatible=True,
            )
            peer = RawPeer(stream)
            if path == "/shop":
                await stream.send_all(upgrade_head(path))
                assert (await peer.receive_head()).startswith(b"HTTP/1.1 402 ")
                assert await stream.receive_some() == b""
            else:
                await peer.request(path)
                await peer.send_message("hello")
                assert await peer.receive_message() == "hello"
            await peer.aclose()
    assert [(request.tls, request.scheme) for request in seen] == [(True, "https")] * 2


# -- delivering a refusal ------------------------------------------------------------------------


@pytest.mark.row("A23")
async def test_what_follows_a_refusal_is_drained_and_never_parsed() -> None:
    """Frames behind a refused head are read over; the response arrives whole; then the end."""
    async with served() as client:
        frame = b"\x81\x85\x00\x00\x00\x00hello"
        request = upgrade_head(omit=[b"Sec-WebSocket-Key"]) + frame * 100
        head, body = await client.answer(request)
        assert head.startswith(b"HTTP/1.1 400 ")
        length = next(line for line in head.split(b"\r\n") if line.startswith(b"Content-Length"))
        assert int(length.split(b":")[1]) == len(body)
        await client.stream.send_all(frame)
        await client.stream.aclose()


@pytest.mark.row("A23")
@pytest.mark.parametrize("flood", [False, True])
async def test_draining_is_bounded_in_time_and_bytes(
    flood: bool, autojump_clock: trio.testing.MockClock
) -> None:
    """A client that stays is dropped after `close_timeout`; one that floods, at once."""
    async with served() as client:
        began = trio.current_time()
        await client.stream.send_all(b"BREW / HTTP/1.1\r\n\r\n")
        assert await client.stream.receive_some()
        if flood:
            with pytest.raises(trio.BrokenResourceError):
                for _ in range(100):
                    await client.stream.send_all(b"x" * 16384)
                    await trio.testing.wait_all_tasks_blocked()
    assert client.done_at == began + (0 if flood else 5)


@pytest.mark.row("A23")
async def test_a_client_that_does_not_read_its_refusal_is_dropped(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with served(wrap=lambda stream: StallingStream(stream, after=20)) as client:
        began = trio.current_time()
        await client.stream.send_all(b"BREW / HTTP/1.1\r\n\r\n")
    assert client.done_at == began + 5


async def test_a_client_that_breaks_off_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    """Wherever it breaks: one line, at DEBUG."""
    caplog.set_level(logging.DEBUG)
    head = upgrade_head()
    for receive_at, send_at in [(0, None), (10, None), (None, 0), (None, 50)]:
        caplog.clear()

        def breaking(
            stream: trio.abc.Stream, receive: int | None = receive_at, send: int | None = send_at
        ) -> trio.abc.Stream:
            return BreakingStream(stream, receive_at=receive, send_at=send)

        async with served(wrap=breaking) as client:
            await client.stream.send_all(head)
        assert [record.levelno for record in caplog.records] == [logging.DEBUG]
    caplog.clear()
    async with served() as client:
        await client.stream.aclose()
    assert [record.levelno for record in caplog.records] == [logging.DEBUG]


async def test_a_foreign_stream_may_fail_in_its_own_way(caplog: pytest.LogCaptureFixture) -> None:
    """An exception no stream should raise ends that connection, is logged once, and closes."""

    class Odd(StallingStream):
        async def receive_some(self, max_bytes: int | None = None) -> bytes:
            raise ZeroDivisionError

    odd: list[Odd] = []

    def wrap(stream: trio.abc.Stream) -> Odd:
        odd.append(Odd(stream))
        return odd[-1]

    async with served(wrap=wrap):
        pass
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError
    assert odd[0].closed


# -- hooks ---------------------------------------------------------------------------------------


def broken_check(request: UpgradeRequest) -> None:
    raise ZeroDivisionError


async def broken_hook(request: UpgradeRequest) -> None:
    raise ZeroDivisionError


async def broken_group(request: UpgradeRequest) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(broken_hook, request)


async def bad_type(request: UpgradeRequest) -> str:
    return "yes"


async def bad_header(request: UpgradeRequest) -> Accept:
    return Accept(headers=[(b"X", b"a\r\nb")])


async def own_upgrade(request: UpgradeRequest) -> Response:
    return Response(200, [(b"Upgrade", b"tls")])


async def own_length(request: UpgradeRequest) -> Response:
    return Response(200, [(b"Content-Length", b"5")])


async def unoffered(request: UpgradeRequest) -> Accept:
    return Accept(subprotocol="nobody.asked")


@pytest.mark.row("A22", "A21")
@pytest.mark.parametrize(
    "options",
    [
        {"policy": Policy(checks=[broken_check])},
        {"authorize": broken_hook},
        {"authorize": broken_group},
        {"authorize": bad_type},
        {"authorize": bad_header},
        {"authorize": own_upgrade},
        {"authorize": own_length},
        {"authorize": unoffered},
        {"http": broken_hook},
        {"http": bad_type},
        {"http": bad_header},
    ],
    ids=lambda options: "-".join(getattr(v, "__name__", k) for k, v in options.items()),
)
async def test_a_bug_in_user_code_is_500_and_one_traceback(
    options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    async with served(**options) as client:
        plain = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
        head, body = await client.answer(plain if "http" in options else upgrade_head())
        assert head.startswith(b"HTTP/1.1 500 ")
        assert b"ZeroDivision" not in body
        await client.stream.aclose()
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert record.name == "trio_ws.handshake"
    assert record.exc_info is not None
    assert record.exc_info[1] is not None


async def test_authorize_has_the_last_word() -> None:
    """A Response refuses; an Accept adds subprotocol, headers and the context; None is yes."""
    contexts: list[object] = []

    async def authorize(request: UpgradeRequest) -> Response | Accept | None:
        if request.path == "/no":
            return Response(401, [(b"WWW-Authenticate", b"Bearer")], b"who are you?")
        if request.path == "/plain":
            return None
        return Accept(headers=[(b"X-User", b"ada")], context={"user": "ada"})

    async def handler(ws: WebSocket) -> None:
        contexts.append(ws.context)

    async with served(authorize=authorize) as client:
        head, body = await client.answer(upgrade_head("/no"))
        assert head.startswith(b"HTTP/1.1 401 ")
        assert b"\r\nWWW-Authenticate: Bearer" in head
        assert body == b"who are you?"
        await client.stream.aclose()
    for path in ("/plain", "/yes"):
        async with served(handler=handler, authorize=authorize) as client:
            head = await client.peer.request(path)
            assert (b"X-User: ada" in head) is (path == "/yes")
            await client.stream.aclose()
    assert contexts == [None, {"user": "ada"}]


async def test_http_answers_get_and_head_and_nothing_else() -> None:
    async def page(request: UpgradeRequest) -> Response:
        return Response(200, [(b"Content-Type", b"text/html")], b"<p>" + request.path.encode())

    for method in (b"GET", b"HEAD", b"POST"):
        async with served(http=page) as client:
            head, body = await client.answer(method + b" /a HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 405 " if method == b"POST" else b"HTTP/1.1 200 ")
            if method != b"POST":
                assert body == (b"<p>/a" if method == b"GET" else b"")
            await client.stream.aclose()


@pytest.mark.row("A22")
@pytest.mark.parametrize("where", ["tls", "head", "authorize", "drain"])
async def test_cancelled_in_the_handshake_not_a_byte_is_said(
    where: str, server_ssl_context: ssl.SSLContext
) -> None:
    async def authorize(request: UpgradeRequest) -> None:
        await trio.sleep_forever()

    def wrap(stream: trio.abc.Stream) -> trio.abc.Stream:
        if where == "tls":
            return trio.SSLStream(stream, server_ssl_context, server_side=True)
        return stream

    async with served(wrap=wrap, authorize=authorize) as client:
        request = {"tls": b"", "head": b"GET / HT", "authorize": upgrade_head(), "drain": b"\0"}
        if request[where]:
            await client.stream.send_all(request[where])
        await trio.testing.wait_all_tasks_blocked()
        client.scope.cancel()
        head, _ = await client.answer()
        assert head.startswith(b"HTTP/1.1 400") if where == "drain" else head == b""
    assert client.scope.cancelled_caught


@pytest.mark.row("A22")
@pytest.mark.parametrize("by", ["deadline", "cancellation"])
async def test_a_hook_that_fails_while_cancelled_is_logged_and_changes_nothing(
    by: str, caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    async def fails() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ZeroDivisionError

    async def authorize(request: UpgradeRequest) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fails)
            nursery.start_soon(trio.sleep_forever)

    async with served(authorize=authorize) as client:
        await client.stream.send_all(upgrade_head())
        await trio.testing.wait_all_tasks_blocked()
        if by == "cancellation":
            client.scope.cancel()
        head, _ = await client.answer()
        assert head.startswith(b"HTTP/1.1 503 ") if by == "deadline" else head == b""
        await client.stream.aclose()
    assert client.scope.cancelled_caught is (by == "cancellation")
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert record.exc_info is not None


async def test_an_interrupt_in_a_hook_goes_through() -> None:
    async def authorize(request: UpgradeRequest) -> None:
        raise KeyboardInterrupt

    ours, theirs = trio.testing.memory_stream_pair()
    await ours.send_all(upgrade_head())
    with pytest.raises(KeyboardInterrupt):
        await serve_stream(echo, theirs, authorize=authorize)
    assert await ours.receive_some() == b""


# -- addresses and logs --------------------------------------------------------------------------


async def test_the_addresses_of_a_stream_in_memory_are_none() -> None:
    seen: list[object] = []

    async def handler(ws: WebSocket) -> None:
        seen.extend((ws.peer_address, ws.local_address))

    async with served(handler=handler) as client:
        await client.peer.request()
        await client.stream.aclose()
    assert seen == [None, None]


@pytest.mark.row("A19")
async def test_the_logs_hold_nothing_hostile_and_no_secret(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Escapes, caps, and neither query, credentials nor subprotocols, whatever the verdict."""
    caplog.set_level(logging.DEBUG)
    secrets = [
        (b"Authorization", b"Bearer hunter2"),
        (b"Cookie", b"id=hunter2"),
        (b"Sec-WebSocket-Protocol", b"hunter2"),
        (b"Origin", b"https://evil.example/\x1b[31m"),
        (b"User-Agent", b"\xff\x1b[31m"),
    ]
    target = b"/" + b"%1b\x1b[31m\xff" * 100 + b"?token=hunter2"
    for headers in (secrets, secrets[:3]):
        for policy in (Policy(), Policy(origins=allow_origins("https://*.good.example"))):
            async with served(policy=policy) as client:
                with trio.move_on_after(0.01):
                    await client.stream.send_all(upgrade_head(target, headers=headers))
                    await client.stream.receive_some()
                await client.stream.aclose()
    assert caplog.records
    for record in caplog.records:
        text = record.getMessage()
        assert text.isascii()
        assert text.isprintable()
        assert len(text) < 400
        assert "hunter2" not in text


async def test_a_tls_proxy_that_is_not_trusted_is_hinted_at_once_per_origin(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Same host, other scheme: the operator is told what to set, once; every refusal is logged."""
    caplog.set_level(logging.INFO, "trio_ws.handshake")
    from trio_ws._entrance import Entrance
    from trio_ws._opening import opening_handshake
    from trio_ws._options import ServerOptions
    from trio_ws._stats import Totals

    entrance = Entrance(Totals())
    for origin in (b"https://localhost", b"https://localhost"):
        ours, theirs = trio.testing.memory_stream_pair()
        await ours.send_all(upgrade_head(headers=[(b"Origin", origin)]))
        await ours.send_eof()
        assert await opening_handshake(theirs, echo, ServerOptions(), entrance=entrance) is None
    levels = [record.levelno for record in caplog.records]
    assert levels == [logging.INFO, logging.WARNING, logging.INFO]
    assert "trusted_proxies" in caplog.records[1].getMessage()
