"""How the examples end: SIGINT cancels, SIGTERM drains; and the HTTP server that hands over.

Lives here: the matrix's row about signals, on real processes. Must never live here: what `drain`
does in detail (`test_drain.py`, on the mock clock).
"""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from typing import Any, TypeAlias

import pytest
import trio

from trio_ws.testing import RawPeer, upgrade_head

Runs: TypeAlias = "Callable[..., Any]"

TOKENS = {"POLICY_GATE_TOKENS": "ann:token-of-ann:admin"}
ANN = (b"Authorization", b"Bearer token-of-ann")


@pytest.mark.row("D16")
@pytest.mark.parametrize(
    ("example", "target"),
    [
        ("echo_server.py", "/"),
        ("policy_gate.py", "/greet/garden"),
        ("chat/server.py", "/chat/garden"),
    ],
)
async def test_sigterm_drains(running: Runs, example: str, target: str) -> None:
    """No new accepts, 503 for a handshake in flight, 1001 for every peer, status 0; and none of the
    ten seconds of grace is waited for in vain."""
    async with running(example, "--port", "0", env=TOKENS) as server:
        peers = [await server.connect(target, ANN) for _ in range(3)]
        if example == "chat/server.py":
            await peers[0].send_message(json.dumps({"type": "join", "nickname": "Ann"}))
            await peers[0].receive_message()
        late = await trio.open_tcp_stream("127.0.0.1", server.port)
        await late.send_all(upgrade_head(target, headers=[ANN])[:50])
        with trio.fail_after(8):
            server.stop(signal.SIGTERM)
            assert (await late.receive_some()).startswith(b"HTTP/1.1 503 ")
            await late.aclose()
            for peer in peers:
                await peer.expect_close(1001)
                await peer.send_close(1001)
                await peer.expect_eof()
            assert await server.process.wait() == 0
        with pytest.raises(OSError, match="connect"):
            await trio.open_tcp_stream("127.0.0.1", server.port)


@pytest.mark.row("D16")
async def test_a_drain_ends_within_its_grace(running: Runs) -> None:
    """A peer that reads and never answers costs it, and no more."""
    async with running("echo_server.py", "--port", "0", "--grace", "0.5") as server:
        peer = await server.connect("/")
        began = trio.current_time()
        server.stop(signal.SIGTERM)
        await peer.expect_close(1001)
        assert await server.process.wait() == 0
        took = trio.current_time() - began
        assert 0.4 < took < 4, "its close_timeout would be 5 s"


async def test_an_http_server_hands_its_upgrades_over(running: Runs) -> None:
    """Pages on one connection, then a WebSocket on the same; refusals come through."""
    async with running("upgrade_behind_h11.py", "--port", "0") as server:
        stream = await trio.open_tcp_stream("127.0.0.1", server.port)
        async with RawPeer(stream) as peer:
            for method, path, status in (
                (b"GET", b"/", b"200"),
                (b"HEAD", b"/", b"200"),
                (b"POST", b"/", b"405"),
                (b"GET", b"/other", b"404"),
            ):
                await stream.send_all(
                    method + b" " + path + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"
                )
                received = await stream.receive_some()
                assert received.split(b" ", 2)[1] == status
                if method == b"GET" and status == b"200":
                    while b"</script>" not in received:
                        received += await stream.receive_some()
            await peer.request("/echo", headers=[(b"Origin", b"http://localhost")])
            await peer.send_message("handed over")
            assert await peer.receive_message() == "handed over"
            foreign = upgrade_head(headers=[(b"Origin", b"https://evil.example")])
            answer = await server.ask(foreign)
            assert answer.status == 403
            assert b"origins" in answer.body
            assert (await server.ask(upgrade_head(key=b"x"))).status == 400
            server.stop(signal.SIGTERM)
            await peer.expect_close(1001)
            await peer.send_close(1001)
            await peer.expect_eof()
