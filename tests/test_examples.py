"""Echo server and policy gate, each run as its own process and spoken to from outside; and the end
of every example.

Lives here: what a reader of `examples/` relies on: options, policy, shutdown. Must never live here:
the chat's rules (`test_examples_chat.py`), or a look inside the processes.
"""

from __future__ import annotations

import json
import signal
import ssl
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import trio
import trustme

from trio_ws.testing import BINARY, CONTINUATION, TEXT, RawPeer, upgrade_head

from .examples_world import Visit, standing

Runs: TypeAlias = Callable[..., Any]

TOKENS = {"POLICY_GATE_TOKENS": "ann:token-of-ann:admin bob:token-of-bob"}
ANN = (b"Authorization", b"Bearer token-of-ann")
BOB = (b"Authorization", b"bearer token-of-bob")
FOREIGN = (b"Origin", b"https://evil.example")


@pytest.fixture(scope="module")
def gate() -> Iterator[Visit]:
    """One policy gate for the tests that only ask it."""
    with standing("policy_gate.py", "--port", "0", env=TOKENS) as visit:
        yield visit


async def test_echo_answers_text_and_binary_and_the_closing_handshake(running: Runs) -> None:
    async with running("echo_server.py", "--port", "0") as server:
        assert server.line == f"listening on ws://127.0.0.1:{server.port}"
        async with await server.connect("/") as peer:
            for message in ("", "grüße", b"", b"\x00\xff", "x" * 100_000):
                await peer.send_message(message)
                assert await peer.receive_message() == message
            await peer.send_close(1000, "bye")
            await peer.expect_close(1000)
            await peer.expect_eof()


@pytest.mark.row("D16")
@pytest.mark.parametrize(
    ("example", "target"),
    [
        ("echo_server.py", "/"),
        ("policy_gate.py", "/greet/garden"),
        ("chat/server.py", "/chat/garden"),
    ],
)
async def test_sigint_tells_every_peer_1001_and_the_status_is_0(
    running: Runs, example: str, target: str
) -> None:
    """One of the peers never answers: it costs the grace, and changes nothing for the others."""
    async with running(example, "--port", "0", env=TOKENS) as server:
        peers = [await server.connect(target, ANN) for _ in range(4)]
        if example == "chat/server.py":
            await peers[0].send_message(json.dumps({"type": "join", "nickname": "Ann"}))
            await peers[0].receive_message()
        server.stop(signal.SIGINT)
        for peer in peers:
            await peer.expect_close(1001)
        for peer in peers[1:]:
            await peer.send_close(1001)
            await peer.expect_eof()
        assert await server.process.wait() == 0
        with pytest.raises(OSError, match="connect"):
            await trio.open_tcp_stream("127.0.0.1", server.port)


async def test_echo_admits_pages_of_its_own_origin_only_unless_told_otherwise(
    running: Runs,
) -> None:
    own, sub = (b"Origin", b"http://localhost"), (b"Origin", b"https://a.b.example.com")
    cases: list[tuple[list[str], list[int]]] = [
        ([], [101, 403, 403]),
        (["--origin", "https://*.example.com", "--origin", "https://x.org"], [101, 101, 403]),
        (["--unsafe-any-origin"], [101, 101, 101]),
    ]
    for options, expected in cases:
        async with running("echo_server.py", "--port", "0", *options) as server:
            asked = [upgrade_head(headers=[origin]) for origin in (own, sub, FOREIGN)]
            assert [(await server.ask(head)).status for head in asked] == expected, options


async def test_echo_refuses_contradictory_options(running: Runs) -> None:
    with pytest.raises(RuntimeError, match="not allowed with"):
        async with running("echo_server.py", "--origin", "https://x.org", "--unsafe-any-origin"):
            raise AssertionError("it must not start")


async def test_echo_bounds_the_bytes_of_a_message_and_not_its_fragments(running: Runs) -> None:
    async with running("echo_server.py", "--port", "0", "--max-message", "6000") as server:
        async with await server.connect("/") as peer:
            await peer.send_frame(TEXT, b"x", fin=False)
            for _ in range(5000):
                await peer.send_frame(CONTINUATION, b"x", fin=False)
            await peer.send_frame(CONTINUATION)
            assert await peer.receive_message() == "x" * 5001
            await peer.send_frame(BINARY, b"x" * 6001)
            await peer.expect_close(1009)


async def test_echo_compresses_if_told_to(running: Runs) -> None:
    offer = [(b"Sec-WebSocket-Extensions", b"permessage-deflate; client_max_window_bits")]
    for options in ([], ["--compression"]):
        async with running("echo_server.py", "--port", "0", *options) as server:
            head = (await server.ask(upgrade_head(headers=offer))).head
            assert (b"permessage-deflate" in head) == bool(options)


async def test_echo_listens_on_a_unix_socket_and_removes_it(running: Runs) -> None:
    with tempfile.TemporaryDirectory() as folder:  # tmp_path may be too long for a socket
        path = Path(folder) / "echo"
        async with running("echo_server.py", "--unix", str(path)) as server:
            assert server.line == f"listening on ws+unix:{path}"
            async with RawPeer(await trio.open_unix_socket(path)) as peer:
                await peer.request("/")
                await peer.send_message("over a file")
                assert await peer.receive_message() == "over a file"
        assert not path.exists()


async def test_echo_speaks_tls(
    running: Runs, ca: trustme.CA, client_ssl_context: ssl.SSLContext, tmp_path: Path
) -> None:
    certificate = ca.issue_cert("localhost")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    tls = ["--tls", str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")]
    async with running("echo_server.py", "--port", "0", *tls) as server:
        assert server.line == f"listening on wss://127.0.0.1:{server.port}"
        tcp = await trio.open_tcp_stream("127.0.0.1", server.port)
        stream = trio.SSLStream(
            tcp, client_ssl_context, server_hostname="localhost", https_compatible=True
        )
        async with RawPeer(stream) as peer:
            await peer.request("/", headers=[(b"Origin", b"https://localhost")])
            await peer.send_message("sealed")
            assert await peer.receive_message() == "sealed"
            server.stop(signal.SIGTERM)
            await peer.expect_close(1001)


async def test_the_gate_refuses_in_the_order_it_documents(gate: Visit) -> None:
    """Each request has the fault of its row and those of all rows below it."""
    greet, console = "/greet/garden", "/admin/console"
    own = (b"Origin", b"https://www.example.com")
    table = [
        (421, upgrade_head("/nowhere", host=b"evil.example", headers=[FOREIGN])),
        (404, upgrade_head("/nowhere", headers=[FOREIGN])),
        (403, upgrade_head(greet, headers=[FOREIGN])),
        (401, upgrade_head(greet, headers=[own])),
        (401, upgrade_head(greet, headers=[(b"Authorization", b"Bearer token-of-an\xff")])),
        (401, upgrade_head(greet, headers=[(b"Authorization", b"Basic token-of-ann")])),
        (401, upgrade_head(greet, headers=[(b"Cookie", b"token=\xff")])),
        (403, upgrade_head(console, headers=[own, BOB])),
        (101, upgrade_head(console, headers=[own, ANN])),
        (101, upgrade_head(greet, host=b"127.0.0.1:1", headers=[BOB])),
    ]
    async with gate() as server:
        for status, head in table:
            answer = await server.ask(head)
            assert answer.status == status, (head, answer)
            assert (b"www-authenticate: bearer" in answer.head.lower()) == (status == 401)


async def test_the_gate_hands_the_user_to_the_handler(gate: Visit) -> None:
    async with gate() as server:
        async with await server.connect(
            "/greet/the%20garden", (b"Cookie", b"token=token-of-bob")
        ) as p:
            assert await p.receive_message() == "hello bob, this is the garden"
        async with await server.connect("/admin/console", ANN) as peer:
            assert await peer.receive_message() == "at your service, ann"


async def test_the_gate_tells_its_health_to_its_own_hosts(gate: Visit) -> None:
    async with gate() as server:
        get = b"%b %b HTTP/1.1\r\nHost: %b\r\n\r\n"
        for method, path, host, status, body in [
            (b"GET", b"/health", b"localhost", 200, b"ok\n"),
            (b"HEAD", b"/health", b"localhost", 200, b""),
            (b"GET", b"/other", b"localhost", 404, None),
            (b"GET", b"/health", b"evil.example", 421, None),
            (b"POST", b"/health", b"localhost", 405, None),
        ]:
            answer = await server.ask(get % (method, path, host))
            assert answer.status == status, (method, path, host)
            assert body is None or answer.body == body


async def test_the_gate_reads_tokens_from_a_file_and_warns_of_the_demo(
    running: Runs, tmp_path: Path
) -> None:
    """The file wins over the variable; with neither, the program says who is let in."""
    (tmp_path / "tokens").write_text("eve:token-of-eve\n")
    options = ("--port", "0", "--tokens", str(tmp_path / "tokens"))
    async with running("policy_gate.py", *options, env=TOKENS) as server:
        head = upgrade_head("/greet/x", headers=[ANN])
        assert (await server.ask(head)).status == 401
        await (await server.connect("/greet/x", (b"Cookie", b"token=token-of-eve"))).aclose()
    env = {"POLICY_GATE_TOKENS": ""}
    async with running("policy_gate.py", "--port", "0", env=env, complains=True) as server:
        demo = (b"Authorization", b"Bearer demo-token-of-ann")
        await (await server.connect("/greet/x", demo)).aclose()
    assert "anybody who reads this file is let in" in server.errors
