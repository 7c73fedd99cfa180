"""Redirects: only if asked for, never to less security; credentials stay with whom they are for."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from trio_ws import Rejected, connect
from trio_ws.testing import RawPeer

MINE = [
    ("Authorization", "Bearer hunter2"),
    ("Cookie", "session=hunter2"),
    ("Proxy-Authorization", "Basic hunter2"),
    ("Origin", "https://app.example"),
    ("X-Trace", "17"),
]


class Site:
    """A server that answers one request after another as it was told, each on its own connection;
    at the end of the list it accepts."""

    def __init__(self, answers: Sequence[bytes]) -> None:
        self.answers = list(answers)
        self.heads: list[bytes] = []
        self.port = 0

    async def serve_one(self, stream: trio.abc.Stream) -> None:
        peer = RawPeer(stream, role="server")
        try:
            if self.answers:
                self.heads.append(await peer.receive_head())
                await peer.send_raw(self.answers.pop(0))
            else:
                self.heads.append(await peer.accept())
                frame = await peer.expect_close()
                await peer.send_close(frame.close_code)
        finally:
            await trio.aclose_forcefully(stream)


@asynccontextmanager
async def site(*answers: bytes, tls: ssl.SSLContext | None = None) -> AsyncIterator[Site]:
    there = Site(answers)

    async def serve_one(stream: trio.abc.Stream) -> None:
        if tls is not None:
            stream = trio.SSLStream(stream, tls, server_side=True, https_compatible=True)
        await there.serve_one(stream)

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        there.port = listeners[0].socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, serve_one, listeners)
        yield there
        nursery.cancel_scope.cancel()


def to(location: str, status: int = 302) -> bytes:
    return (
        f"HTTP/1.1 {status} Moved\r\nLocation: {location}\r\nContent-Length: 4\r\n\r\nmove"
    ).encode()


async def rejected(url: str, **options: Any) -> Rejected:
    with pytest.raises(Rejected) as caught:
        async with connect(url, proxy=None, **options):
            raise AssertionError("it opened")
    return caught.value


@pytest.mark.row("H2")
async def test_by_default_a_redirect_is_a_refusal() -> None:
    async with site(to("/there")) as there:
        exc = await rejected(f"ws://127.0.0.1:{there.port}/here")
        assert exc.response.header("location") == b"/there"
        assert exc.response.body == b"move"
        assert len(there.heads) == 1


@pytest.mark.row("H2")
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_if_asked_for_it_is_followed(status: int) -> None:
    """With a fresh key, and within one origin with every header."""
    async with site(to("there?x", status)) as there:
        url = f"ws://127.0.0.1:{there.port}/dir/here"
        async with connect(url, proxy=None, redirects=1, headers=MINE) as ws:
            assert ws.request.target == "/dir/there?x"
        first, second = there.heads
        assert second.startswith(b"GET /dir/there?x HTTP/1.1\r\n")
        keys = [head.partition(b"Sec-WebSocket-Key: ")[2].split(b"\r\n")[0] for head in there.heads]
        assert keys[0] != keys[1]
        assert second.count(b"hunter2") == first.count(b"hunter2") == 3


async def test_only_so_many_are_followed() -> None:
    async with site(to("/1"), to("/2"), to("/3")) as there:
        exc = await rejected(f"ws://127.0.0.1:{there.port}/", redirects=2)
        assert exc.response.header("location") == b"/3"
        assert len(there.heads) == 3


async def test_credentials_stay_behind_when_the_origin_changes() -> None:
    """Another port is another origin. A `Host` of the caller's was meant for the first server."""
    async with site() as other:
        async with site(to(f"ws://127.0.0.1:{other.port}/there")) as there:
            async with connect(
                f"ws://127.0.0.1:{there.port}/",
                proxy=None,
                redirects=1,
                headers=[*MINE, ("host", "front.example")],
            ):
                pass
        (head,) = other.heads
        assert there.heads[0].count(b"hunter2") == 3
        assert b"hunter2" not in head
        assert b"front.example" not in head
        assert f"Host: 127.0.0.1:{other.port}\r\n".encode() in head
        assert b"X-Trace: 17\r\n" in head


async def test_credentials_do_not_come_back_with_the_origin() -> None:
    """The second server could have chosen the path they are sent to."""
    async with site() as other, site() as there:
        there.answers.append(to(f"http://127.0.0.1:{other.port}/"))
        other.answers.append(to(f"http://127.0.0.1:{there.port}/back"))
        url = f"ws://127.0.0.1:{there.port}/"
        async with connect(url, proxy=None, redirects=2, headers=MINE):
            pass
        assert [b"hunter2" in head for head in there.heads] == [True, False]


async def test_never_from_wss_to_ws(
    server_ssl_context: ssl.SSLContext, client_ssl_context: ssl.SSLContext
) -> None:
    async with site() as plain:
        async with site(to(f"ws://127.0.0.1:{plain.port}/"), tls=server_ssl_context) as secure:
            url = f"wss://localhost:{secure.port}/"
            exc = await rejected(url, redirects=5, ssl_context=client_ssl_context)
            assert exc.response.status == 302
        assert plain.heads == []


async def test_from_ws_to_wss(
    server_ssl_context: ssl.SSLContext, client_ssl_context: ssl.SSLContext
) -> None:
    """Here an `ssl_context` with a ``ws`` URL has a meaning."""
    async with site(tls=server_ssl_context) as secure:
        async with site(to(f"https://localhost:{secure.port}/")) as plain:
            async with connect(
                f"ws://localhost:{plain.port}/",
                proxy=None,
                redirects=1,
                ssl_context=client_ssl_context,
            ) as ws:
                assert ws.request.tls


@pytest.mark.parametrize(
    "answer",
    [
        to("ftp://127.0.0.1/"),
        to("javascript:alert(1)"),
        to("//[::1"),
        to("ws://user:hunter2@127.0.0.1/"),
        to("ws://127.0.0.1:0/"),
        b"HTTP/1.1 302 Found\r\nLocation: \xff\xfe\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: /a\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n",
        to("/there", 300),
        to("/there", 304),
        to("/there", 401),
    ],
)
async def test_a_redirect_to_nowhere_is_a_refusal(answer: bytes) -> None:
    async with site(answer) as there:
        exc = await rejected(f"ws://127.0.0.1:{there.port}/", redirects=5)
        assert 300 <= exc.response.status <= 401
        assert len(there.heads) == 1
