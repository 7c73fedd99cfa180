"""The examples, each run as its own process and spoken to from outside.

Lives here: what a reader of `examples/` relies on: options, policy, shutdown, and what the chat's
README promises. Must never live here: a look inside the processes, or the chat's page in a browser
(`tests/browser`).
"""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_ws.testing import BINARY, CONTINUATION, TEXT, RawPeer, upgrade_head

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    import trustme

EXAMPLES = Path(__file__).parents[1] / "examples"
NO_ENV: Mapping[str, str] = MappingProxyType({})

TOKENS = {"POLICY_GATE_TOKENS": "ann:token-of-ann:admin bob:token-of-bob"}
ANN = (b"Authorization", b"Bearer token-of-ann")
BOB = (b"Authorization", b"bearer token-of-bob")
FOREIGN = (b"Origin", b"https://evil.example")

SECRET = "0123456789abcdef"  # what a page sends with its nickname
HOSTILE = "<script>alert('x')</script>"
FACE = "\N{GRINNING FACE}"


# -- running one


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back for one request: status, head, and all that followed if it was no 101."""

    status: int
    head: bytes
    body: bytes


@dataclass(kw_only=True)
class Running:
    """An example in its own process; `line` is what it printed, `errors` its stderr at the end."""

    process: trio.Process
    line: str
    errors: str = ""
    peers: list[RawPeer] = field(default_factory=list)
    stopped: bool = False

    @property
    def port(self) -> int:
        return int(self.line.rpartition(":")[2])

    def stop(self, signum: signal.Signals) -> None:
        """Send the one signal of its life."""
        self.stopped = True
        self.process.send_signal(signum)

    async def connect(self, target: str, *headers: tuple[bytes, bytes]) -> RawPeer:
        """Open a WebSocket; it is closed at the end, if not before."""
        peer = RawPeer(await trio.open_tcp_stream("127.0.0.1", self.port))
        self.peers.append(peer)
        await peer.request(target, headers=headers)
        return peer

    async def ask(self, request: bytes) -> Answer:
        """Send a request as it is and read its answer, up to the end unless that is a 101."""
        async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
            await stream.send_all(request)
            got = b""
            async for chunk in stream:
                got += chunk
                if got.startswith(b"HTTP/1.1 101 ") and b"\r\n\r\n" in got:
                    break
        head, _, body = got.partition(b"\r\n\r\n")
        return Answer(status=int(head.split(b" ", 2)[1]), head=head + b"\r\n", body=body)


@asynccontextmanager
async def running(
    example: str, *options: str, env: Mapping[str, str] = NO_ENV, complains: bool = False
) -> AsyncIterator[Running]:
    """Run an example until SIGTERM. It must end with 0, having printed one line and no complaint.

    RuntimeError with its stderr if it ends before it listens.
    """
    command = [sys.executable, "-W", "error", str(EXAMPLES / example), *options]
    with trio.fail_after(60), tempfile.TemporaryFile() as errors:
        process = await trio.lowlevel.open_process(
            command, stdout=subprocess.PIPE, stderr=errors, env={**os.environ, **env}
        )
        assert process.stdout is not None
        try:
            output = b""
            async for chunk in process.stdout:
                output += chunk
                if output.endswith(b"\n"):
                    break
            else:
                await process.wait()
                errors.seek(0)
                raise RuntimeError(errors.read().decode())
            server = Running(process=process, line=output.decode().removesuffix("\n"))
            try:
                yield server
            finally:
                for peer in server.peers:
                    await trio.aclose_forcefully(peer.stream)
            if not server.stopped:
                server.stop(signal.SIGTERM)
            assert await process.wait() == 0
            assert await process.stdout.receive_some() == b"", "it printed more than one line"
            errors.seek(0)
            server.errors = errors.read().decode()
            assert complains or not server.errors, server.errors
        finally:
            if process.returncode is None:
                process.kill()
                with trio.CancelScope(shield=True):
                    await process.wait()
            await trio.aclose_forcefully(process.stdout)


# -- echo server and policy gate


async def test_echo_answers_text_and_binary_and_the_closing_handshake() -> None:
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
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    ("example", "target"),
    [
        ("echo_server.py", "/"),
        ("policy_gate.py", "/greet/garden"),
        ("chat/server.py", "/chat/garden"),
    ],
)
async def test_a_signal_tells_every_peer_1001_and_the_status_is_0(
    example: str, target: str, signum: signal.Signals
) -> None:
    """One of the peers never answers: it costs the grace, and changes nothing for the others."""
    async with running(example, "--port", "0", env=TOKENS) as server:
        peers = [await server.connect(target, ANN) for _ in range(4)]
        if example == "chat/server.py":
            await peers[0].send_message(json.dumps({"type": "join", "nickname": "Ann"}))
            await peers[0].receive_message()
        server.stop(signum)
        for peer in peers:
            await peer.expect_close(1001)
        for peer in peers[1:]:
            await peer.send_close(1001)
            await peer.expect_eof()
        assert await server.process.wait() == 0
        with pytest.raises(OSError, match="connect"):
            await trio.open_tcp_stream("127.0.0.1", server.port)


async def test_echo_admits_pages_of_its_own_origin_only_unless_told_otherwise() -> None:
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


async def test_echo_refuses_contradictory_options() -> None:
    with pytest.raises(RuntimeError, match="not allowed with"):
        async with running("echo_server.py", "--origin", "https://x.org", "--unsafe-any-origin"):
            raise AssertionError("it must not start")


async def test_echo_bounds_the_bytes_of_a_message_and_not_its_fragments() -> None:
    async with running("echo_server.py", "--port", "0", "--max-message", "6000") as server:
        async with await server.connect("/") as peer:
            await peer.send_frame(TEXT, b"x", fin=False)
            for _ in range(5000):
                await peer.send_frame(CONTINUATION, b"x", fin=False)
            await peer.send_frame(CONTINUATION)
            assert await peer.receive_message() == "x" * 5001
            await peer.send_frame(BINARY, b"x" * 6001)
            await peer.expect_close(1009)


async def test_echo_listens_on_a_unix_socket_and_removes_it() -> None:
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
    ca: trustme.CA, client_ssl_context: ssl.SSLContext, tmp_path: Path
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


async def test_the_gate_refuses_in_the_order_it_documents() -> None:
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
    async with running("policy_gate.py", "--port", "0", env=TOKENS) as server:
        for status, head in table:
            answer = await server.ask(head)
            assert answer.status == status, (head, answer)
            assert (b"www-authenticate: bearer" in answer.head.lower()) == (status == 401)


async def test_the_gate_hands_the_user_to_the_handler() -> None:
    async with running("policy_gate.py", "--port", "0", env=TOKENS) as server:
        async with await server.connect(
            "/greet/the%20garden", (b"Cookie", b"token=token-of-bob")
        ) as p:
            assert await p.receive_message() == "hello bob, this is the garden"
        async with await server.connect("/admin/console", ANN) as peer:
            assert await peer.receive_message() == "at your service, ann"


async def test_the_gate_tells_its_health_to_its_own_hosts() -> None:
    async with running("policy_gate.py", "--port", "0", env=TOKENS) as server:
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


async def test_the_gate_reads_tokens_from_a_file_and_warns_of_the_demo(tmp_path: Path) -> None:
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


# -- chat


@pytest.fixture
async def chat() -> AsyncIterator[Running]:
    async with running("chat/server.py", "--port", "0") as server:
        yield server


async def say(peer: RawPeer, **event: object) -> None:
    """Send one event."""
    await peer.send_message(json.dumps(event))


async def hear(peer: RawPeer, kind: str) -> dict[str, Any]:
    """Receive the next event, which must be of this type."""
    message = await peer.receive_message()
    event: dict[str, Any] = json.loads(message)
    assert event["type"] == kind, event
    return event


async def enter(chat: Running, nickname: str, room: str = "garden", **more: str) -> RawPeer:
    """Connect and join; the "welcome" has not been read yet."""
    peer: RawPeer = await chat.connect(f"/chat/{room}")
    await say(peer, type="join", nickname=nickname, **more)
    return peer


async def test_two_members_talk_and_see_each_other_come_and_go(chat: Running) -> None:
    ann = await enter(chat, "Ann")
    assert (await hear(ann, "welcome"))["members"] == ["Ann"]
    bob = await enter(chat, "  Bob\t ")
    welcome = await hear(bob, "welcome")
    assert (welcome["nickname"], welcome["members"]) == ("Bob", ["Ann", "Bob"])
    assert (await hear(ann, "joined"))["nickname"] == "Bob"
    await say(ann, type="say", text=" hello ")
    for peer in (ann, bob):
        message = await hear(peer, "message")
        assert (message["from"], message["text"]) == ("Ann", "hello")
    await bob.send_close(1000)
    await bob.expect_close(1000)
    assert (await hear(ann, "left"))["nickname"] == "Bob"


async def test_a_lost_connection_is_a_member_who_left(chat: Running) -> None:
    ann, bob = await enter(chat, "Ann"), await enter(chat, "Bob")
    await hear(bob, "welcome")
    await bob.aclose()
    await hear(ann, "welcome")
    await hear(ann, "joined")
    await hear(ann, "left")


async def test_rooms_hear_nothing_of_each_other(chat: Running) -> None:
    ann, bob = await enter(chat, "Ann", "here"), await enter(chat, "Ann", "there")
    for peer, text in ((ann, "from here"), (bob, "from there")):
        await hear(peer, "welcome")
        await say(peer, type="say", text=text)
        assert (await hear(peer, "message"))["text"] == text


async def test_a_newcomer_is_shown_the_last_50_messages(chat: Running) -> None:
    """They have ids of their own, and outlive the last member of the room."""
    ann = await enter(chat, "Ann")
    await hear(ann, "welcome")
    for number in range(60):
        await say(ann, type="say", text=f"{number}")
        await hear(ann, "message")
    await ann.send_close(1000)
    await ann.read_to_end()
    await ann.aclose()
    bob = await enter(chat, "Bob")
    history = (await hear(bob, "welcome"))["history"]
    assert [message["text"] for message in history] == [f"{number}" for number in range(10, 60)]
    assert len({message["id"] for message in history}) == 50


async def test_a_slow_member_delays_nobody_and_is_put_out_with_1013(chat: Running) -> None:
    """Nothing is sent before everybody else has heard the message before: one of them waiting for
    the slow one would stop it all."""
    slow, ann, bob = await enter(chat, "slow"), await enter(chat, "Ann"), await enter(chat, "Bob")
    await hear(slow, "welcome")
    for peer in (ann, bob):
        await hear(peer, "welcome")
    await hear(ann, "joined")
    left: dict[str, Any] = {}
    for _ in range(2000):  # 24 kB each: far more than the socket buffers and the backlog hold
        await say(ann, type="say", text=FACE * 2000)
        events = [json.loads(await peer.receive_message()) for peer in (ann, bob)]
        if events[0]["type"] == "left":
            left = events[0]
            break
        assert [event["text"] for event in events] == [FACE * 2000] * 2
    assert left["nickname"] == "slow"
    await slow.expect_close(1013)
    await slow.send_close(1013)
    await slow.expect_eof()


async def test_markup_in_a_nickname_and_a_message_stays_as_it_is(chat: Running) -> None:
    """Nothing is escaped or removed here: the page shows all of it as text."""
    ann = await enter(chat, HOSTILE)
    assert (await hear(ann, "welcome"))["members"] == [HOSTILE]
    await say(ann, type="say", text=HOSTILE)
    message = await hear(ann, "message")
    assert (message["from"], message["text"]) == (HOSTILE, HOSTILE)


@pytest.mark.parametrize(
    "nickname", ["", " \u2003 ", "x" * 65, "a\u202eb", "a\u200bb", "a\x00b", "\ud800", 7, None]
)
async def test_a_bad_nickname_is_refused_with_4000(chat: Running, nickname: object) -> None:
    peer = await chat.connect("/chat/garden")
    await say(peer, type="join", nickname=nickname)
    assert "nickname" in (await peer.expect_close(4000)).close_reason


async def test_a_nickname_is_unique_in_its_room_whatever_its_case(chat: Running) -> None:
    """Without the secret it was taken with, an empty or missing one included."""
    ann = await enter(chat, "Straße")
    await hear(ann, "welcome")
    for more in ({}, {"client": ""}, {"client": SECRET}, {"client": "\ud800" * 16}):
        other = await enter(chat, "STRASSE", **more)
        assert "taken" in (await other.expect_close(4000)).close_reason
        await other.aclose()


async def test_who_returns_with_the_same_secret_replaces_the_old_connection(chat: Running) -> None:
    """Nobody left and nobody joined, as far as the others can tell."""
    old, bob = await enter(chat, "Ann", client=SECRET), await enter(chat, "Bob")
    await hear(old, "welcome")
    await hear(bob, "welcome")
    new = await enter(chat, "ann", client=SECRET)
    welcome = await hear(new, "welcome")
    assert (welcome["nickname"], welcome["members"]) == ("Ann", ["Ann", "Bob"])
    await old.expect_close(4001)
    await old.send_close(4001)
    await old.expect_eof()
    await say(new, type="say", text="it is me")
    assert (await hear(bob, "message"))["from"] == "Ann"


async def test_what_is_no_event_is_answered_and_changes_nothing(chat: Running) -> None:
    """Before joining and after; then the same connection goes on."""
    ann = await chat.connect("/chat/garden")
    nonsense: list[str | bytes] = [
        "",
        "{",
        "[" * 15_000,
        "7",
        "[]",
        "{}",
        '{"type": 7}',
        b"\xff",
        b'{"type": "say"}',
    ]
    nonsense += ['{"type": "dance"}', '{"type": "say"}', '{"type": "say", "text": 7}']
    nonsense += ['{"type": "say", "text": " "}', json.dumps({"type": "say", "text": "x" * 2001})]
    for message in nonsense:
        await ann.send_message(message)
        assert (await hear(ann, "error"))["text"], message
    await say(ann, type="join", nickname="Ann")
    await hear(ann, "welcome")
    for message in nonsense:
        await ann.send_message(message)
        assert (await hear(ann, "error"))["text"], message
    await say(ann, type="say", text=FACE * 2000)
    assert (await hear(ann, "message"))["text"] == FACE * 2000


async def test_a_message_beyond_all_measure_ends_its_connection_only(chat: Running) -> None:
    ann, bob = await enter(chat, "Ann"), await enter(chat, "Bob")
    await hear(ann, "welcome")
    await hear(bob, "welcome")
    await ann.send_message("x" * (32 * 1024 + 1))
    await ann.expect_close(1009)
    assert (await hear(bob, "left"))["nickname"] == "Ann"


async def test_the_page_and_its_files_are_served_on_the_same_port(chat: Running) -> None:
    """Every answer forbids inline script, and foreign content altogether."""
    assert chat.line == f"listening on http://127.0.0.1:{chat.port}"
    request = b"%b %b HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for path, status, content_type, piece in [
        (b"/", 200, b"text/html; charset=utf-8", b'<form id="join"'),
        (b"/room/garden", 200, b"text/html; charset=utf-8", b'<form id="join"'),
        (b"/chat.js", 200, b"text/javascript; charset=utf-8", b"textContent"),
        (b"/chat.css", 200, b"text/css; charset=utf-8", b":root"),
        (b"/icon.svg", 200, b"image/svg+xml", b"<svg"),
        (b"/room/", 404, b"text/plain; charset=utf-8", b"not found"),
        (b"/room/%3Cscript%3E", 404, b"text/plain; charset=utf-8", b"not found"),
        (b"/../server.py", 404, b"text/plain; charset=utf-8", b"not found"),
        (b"/page/index.html", 404, b"text/plain; charset=utf-8", b"not found"),
    ]:
        answer = await chat.ask(request % (b"GET", path))
        head = answer.head.lower()
        assert answer.status == status, path
        assert b"content-type: " + content_type + b"\r\n" in head
        assert b"content-security-policy: default-src 'none'; script-src 'self';" in head
        assert b"cache-control: no-store" in head
        assert piece in answer.body
        bare = await chat.ask(request % (b"HEAD", path))
        assert (bare.status, bare.body) == (status, b"")
        assert b"content-length: %d\r\n" % len(answer.body) in bare.head.lower()


async def test_nobody_joins_a_room_that_could_not_be_linked_to(chat: Running) -> None:
    for room in ("/chat/", "/chat/a%2Fb", "/chat/%3Cb%3E", "/chat/" + 33 * "x", "/chat/a/b"):
        assert (await chat.ask(upgrade_head(room))).status == 404, room
    foreign = [(b"Origin", b"https://evil.example")]
    assert (await chat.ask(upgrade_head("/chat/garden", headers=foreign))).status == 403


async def test_the_page_uses_no_way_to_turn_text_into_markup(chat: Running) -> None:
    script = (await chat.ask(b"GET /chat.js HTTP/1.1\r\nHost: localhost\r\n\r\n")).body
    for way in (b"innerHTML", b"outerHTML", b"insertAdjacentHTML", b"document.write", b"eval("):
        assert way not in script


async def test_a_burst_of_one_member_puts_out_nobody_who_reads(chat: Running) -> None:
    """Ten times the backlog, sent without a pause."""
    ann, bob = await enter(chat, "Ann"), await enter(chat, "Bob")
    await hear(bob, "welcome")

    async def burst() -> None:
        for number in range(2560):
            await say(ann, type="say", text=f"{number}")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(burst)
        nursery.start_soon(ann.read_to_end)
        for number in range(2560):
            assert (await hear(bob, "message"))["text"] == f"{number}"
        nursery.cancel_scope.cancel()
