"""The command line as people and scripts meet it: processes, pipes, a real pseudo-terminal.

Lives here: each command run as its own process against a server of this one. Must never live here:
the parts that need no process (`test_command_line_parts.py`), the library's own rules.
"""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import xml.etree.ElementTree as ET
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_ws import Close, ConnectionClosed, Policy, Rejected, WebSocket, connect, serve

pty = pytest.importorskip("pty", reason="pseudo-terminals are Unix's")
termios = pytest.importorskip("termios", reason="terminal modes are Unix's")

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

COMMAND = [sys.executable, "-W", "error", "-m", "trio_ws"]
HOSTILE = "\x1b]0;owned\x07 \x9b31m \u202edrow \r\n done"
SHOWN = r"\x1b]0;owned\x07 \x9b31m \u202edrow \r\n done"

# A process that becomes the leader of a session has no terminal until it takes one.
TAKE_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
    " os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)


@dataclass
class Seen:
    """What the server of a test saw."""

    closes: list[Close] = field(default_factory=list)
    requests: list[Any] = field(default_factory=list)

    async def codes(self, number: int = 1) -> list[int]:
        """Wait until so many connections have ended; returns their close codes."""
        with trio.fail_after(60):
            while len(self.closes) < number:
                await trio.lowlevel.checkpoint()
        return [close.code for close in self.closes]


async def behave(seen: Seen, ws: WebSocket) -> None:
    """The path says how to behave."""
    seen.requests.append(ws.request)
    try:
        await talk(ws)
    finally:
        with trio.CancelScope(shield=True):
            seen.closes.append(await ws.wait_closed())


async def talk(ws: WebSocket) -> None:
    _, what, *rest = ws.request.path.split("/")
    if what == "close":
        await ws.close(int(rest[0]), "as you \x1b wish")
    elif what == "hostile":
        await ws.send(HOSTILE)
        await ws.send(b"\x00\x1b\xff" * 20)
    elif what == "shout":
        async for _ in ws:
            await ws.send("SOMETHING ELSE")
    elif what == "silent":
        await ws.wait_closed()
    async for message in ws:
        if message == "close 4001":
            await ws.close(4001)
        await ws.send(message)


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[tuple[str, Seen]]:
    """A server of this process: the beginning of its URLs, and what it sees."""
    seen = Seen()
    async with trio.open_nursery() as nursery:
        start = partial(serve, partial(behave, seen), 0, host="127.0.0.1", **options)
        server = await nursery.start(start)
        scheme = "wss" if "ssl_context" in options else "ws"
        host = "localhost" if "ssl_context" in options else "127.0.0.1"
        yield f"{scheme}://{host}:{server.port}", seen
        nursery.cancel_scope.cancel()


async def run(*arguments: str, stdin: bytes = b"", **options: Any) -> Any:
    """One command, to its end: `returncode`, `stdout`, `stderr` as text."""
    with trio.fail_after(60):
        done = await trio.run_process(
            [*COMMAND, *arguments],
            stdin=stdin,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            **options,
        )
    done.stdout, done.stderr = done.stdout.decode(), done.stderr.decode()
    assert "Traceback" not in done.stderr, done.stderr
    return done


# -- connect in a pipe ---------------------------------------------------------------------------


async def test_in_a_pipe_lines_go_out_and_messages_come_in() -> None:
    """stdout holds the messages and nothing else, the last line needs no end."""
    async with serving() as (url, seen):
        lines = "one\r\n\ngrüße\nlast".encode()
        done = await run("connect", f"{url}/?token=hidden", "--wait=0.3", stdin=lines)
        assert (done.returncode, done.stdout) == (0, "one\n\ngrüße\nlast\n")
        assert "closed: 1000" in done.stderr
        assert "hidden" not in done.stderr
        assert await seen.codes() == [1000]


async def test_send_and_ping_need_no_input() -> None:
    """With stdin open and silent, the command still ends."""
    async with serving() as (url, _):
        reading, writing = os.pipe()
        try:
            command = ["connect", f"{url}/", "--send", "a", "--send", "b", "--ping", "--wait=0.2"]
            done = await run(*command, stdin=reading)  # type: ignore[arg-type]
        finally:
            os.close(reading)
            os.close(writing)
        assert (done.returncode, done.stdout) == (0, "a\nb\n")
        assert "pong after " in done.stderr


@pytest.mark.parametrize(
    ("code", "status"), [(1000, 0), (1001, 0), (1008, 18), (1011, 21), (3000, 30), (4001, 40)]
)
async def test_the_exit_status_tells_the_close_code(code: int, status: int) -> None:
    async with serving() as (url, _):
        done = await run("connect", f"{url}/close/{code}", "--wait=inf", "--send=x")
        assert done.returncode == status
        assert rf"closed: {code}" in done.stderr
        assert r"as you \x1b wish" in done.stderr
        assert "\x1b" not in done.stderr


async def test_a_lost_connection_is_status_16() -> None:
    """A server that is killed says nothing."""
    server = await trio.lowlevel.open_process([*COMMAND, "serve", "--port=0"], **PIPES)
    assert server.stdout is not None
    assert server.stderr is not None
    url = (await server.stdout.receive_some()).decode().strip()
    client = await trio.lowlevel.open_process([*COMMAND, "connect", url], stdin=-1, **PIPES)
    assert client.stderr is not None
    with trio.fail_after(60):
        assert b"connected" in await client.stderr.receive_some()
        server.kill()
        assert await client.wait() == 16
        await server.wait()
    for process in (server, client):
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                await stream.aclose()


PIPES: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}


async def test_refused_unreachable_and_wrong_are_told_apart() -> None:
    """4, 3 and 2, each with one line of words."""
    async with serving() as (url, _):
        for arguments, status in (
            ([f"{url}/", "--origin=https://evil.example"], 4),
            (["ws://127.0.0.1:1/"], 3),
            (["http://127.0.0.1/"], 2),
            ([f"{url}/", "--subprotocol=not a token"], 2),
            ([f"{url}/", "--header=Upgrade: other"], 2),
            ([f"{url}/", "--proxy=gopher://x"], 2),
        ):
            done = await run("connect", *arguments)
            assert (done.returncode, done.stdout) == (status, ""), arguments
            assert done.stderr.startswith("trio-ws: "), done.stderr
            assert done.stderr.count("\n") == 1


async def test_hostile_text_is_escaped_in_a_pipe_and_exact_in_json() -> None:
    async with serving() as (url, _):
        plain = await run("connect", f"{url}/hostile", "--send=x", "--wait=0.2")
        first, second, *_ = plain.stdout.splitlines()
        assert first == SHOWN
        assert second.startswith("<60 bytes> 00 1b ff ")
        done = await run("connect", f"{url}/hostile", "--send=x", "--ping", "--wait=0.2", "--json")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["event"] for event in events if event["event"] != "message"] == (
        ["open", "pong", "close"]
    )
    messages = [event for event in events if event["event"] == "message"]
    assert messages[0]["text"] == HOSTILE
    assert messages[1]["base64"] == "ABv/" * 20
    assert events[-1] == {"event": "close", "code": 1000, "reason": "", "initiator": "local"}
    assert done.stdout.isascii()
    assert done.stderr == ""


async def test_json_tells_a_refusal_too() -> None:
    async with serving() as (url, _):
        done = await run("connect", f"{url}/", "--json", "--origin=https://evil.example")
    assert done.returncode == 4
    (event,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert (event["event"], event["status"]) == ("error", 403)


async def test_input_that_is_no_text_stops_there_and_is_told() -> None:
    async with serving() as (url, _):
        done = await run("connect", f"{url}/", "--wait=0.2", stdin=b"fine\n\xff\nnever\n")
    assert (done.returncode, done.stdout) == (2, "fine\n")
    assert "line 2 is not UTF-8" in done.stderr


async def test_headers_origin_and_subprotocols_reach_the_server() -> None:
    policy = Policy(subprotocols=["b"])
    async with serving(policy=policy) as (url, seen):
        options = ["--header=X-A: 1", "--header", "X-A:2", "--subprotocol=a", "--subprotocol=b"]
        done = await run("connect", f"{url}/", "--send=x", "--wait=0.1", *options)
        assert "subprotocol b" in done.stderr
        (request,) = seen.requests
        assert request.header_all("x-a") == (b"1", b"2")
        assert request.subprotocols == ("a", "b")


async def test_a_reader_that_leaves_ends_it_without_a_traceback() -> None:
    """As with `| head`."""
    async with serving() as (url, _):
        reading, writing = os.pipe()
        os.close(reading)
        with trio.fail_after(60):
            done = await trio.run_process(
                [*COMMAND, "connect", f"{url}/", "--send=x"],
                stdout=writing,
                capture_stderr=True,
                check=False,
            )
        os.close(writing)
    assert done.returncode == 128 + signal.SIGPIPE
    assert b"Traceback" not in done.stderr
    assert b"Exception" not in done.stderr


async def test_insecure_is_needed_for_a_stranger_and_is_said_aloud(
    server_ssl_context: ssl.SSLContext,
) -> None:
    async with serving(ssl_context=server_ssl_context) as (url, _):
        done = await run("connect", f"{url}/", "--send=x")
        assert done.returncode == 3
        assert "certificate" in done.stderr
        done = await run("connect", f"{url}/", "--send=x", "--wait=0.2", "--insecure")
        assert (done.returncode, done.stdout) == (0, "x\n")
        assert "--insecure" in done.stderr
        done = await run("check", f"{url}/", "--insecure")
        assert (done.returncode, "TLS: TLSv1" in done.stdout) == (0, True)


# -- connect on a terminal -----------------------------------------------------------------------


class Person:
    """Somebody at a pseudo-terminal, in front of one command."""

    def __init__(self, process: trio.Process, master: int, slave: int, found: list[Any]) -> None:
        self.process = process
        self.seen = ""
        self.found = found
        self._keys = trio.lowlevel.FdStream(master)
        self._slave = slave

    def modes(self) -> list[Any]:
        """The terminal's modes."""
        return termios.tcgetattr(self._slave)

    async def type(self, keys: str) -> None:
        """Press keys."""
        await self._keys.send_all(keys.encode())

    async def sees(self, text: str) -> str:
        """Wait until `text` comes to the screen; returns what came up to its end."""
        with trio.fail_after(60):
            while text not in self.seen:
                self.seen += (await self._keys.receive_some()).decode()
        before, found, self.seen = self.seen.partition(text)
        return before + found

    async def ends(self) -> int:
        """Wait until the command has ended; returns its status."""
        with trio.fail_after(60):
            return await self.process.wait()


@asynccontextmanager
async def at_a_terminal(*arguments: str) -> AsyncIterator[Person]:
    """A command in a session and terminal of its own."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, 80))
    found = termios.tcgetattr(slave)
    process = await trio.lowlevel.open_process(
        [sys.executable, "-c", TAKE_TERMINAL, *COMMAND[1:], *arguments],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        env={**os.environ, "TERM": "xterm"},
    )
    person = Person(process, master, slave, found)
    try:
        yield person
    finally:
        if process.returncode is None:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
        await trio.aclose_forcefully(person._keys)  # noqa: SLF001 our own helper's
        os.close(slave)


async def test_a_person_types_a_line_and_reads_the_answer() -> None:
    """Backspace, Ctrl-U and Ctrl-W work, and Ctrl-D closes with 1000."""
    async with serving() as (url, seen), at_a_terminal("connect", f"{url}/") as person:
        await person.sees("> ")
        assert not person.modes()[3] & (termios.ICANON | termios.ECHO)
        await person.type("wrong\x15two words\x17helkk\x7f\x7flo\r")
        await person.sees("< two hello\r\n")
        await person.type("\x1b[A!\r")
        await person.sees("< two hello!\r\n")
        await person.type("\x04")
        assert await person.ends() == 0
        assert person.modes() == person.found
        await person.sees("closed: 1000")
        assert await seen.codes() == [1000]


async def test_what_comes_in_does_not_disturb_what_is_being_typed() -> None:
    """The message stands on a line of its own, the half-typed line is drawn again below it."""
    async with serving() as (url, _), at_a_terminal("connect", f"{url}/hostile") as person:
        screen = await person.sees("<60 bytes>")
        assert f"< {SHOWN}\r\n" in screen
        assert "\x1b]0" not in screen
        assert "\x9b" not in screen
        await person.sees("> ")
        await person.type("ha")
        await person.sees("> ha")
        await person.type("llo\r")
        await person.sees("< hallo\r\n")
        await person.type("close 4001\r")
        assert await person.ends() == 40
        assert person.modes() == person.found


@pytest.mark.parametrize(("key", "status"), [("\x03", 130), ("\x1c", 131)])
async def test_ctrl_c_leaves_the_terminal_as_it_was_and_the_server_hears_1001(
    key: str, status: int
) -> None:
    async with serving() as (url, seen), at_a_terminal("connect", f"{url}/") as person:
        await person.sees("> ")
        assert person.modes() != person.found
        await person.type("half a li")
        await person.sees("half a li")
        await person.type(key)
        assert await person.ends() == status
        assert person.modes() == person.found
        assert await seen.codes() == [1001]


async def test_ctrl_z_gives_the_terminal_back_for_the_time_being() -> None:
    async with serving() as (url, _), at_a_terminal("connect", f"{url}/") as person:
        await person.sees("> ")
        await person.type("before")
        await person.sees("> before")
        await person.type("\x1a")
        stopped = partial(os.waitid, os.P_PID, person.process.pid, os.WSTOPPED)
        with trio.fail_after(60):
            await trio.to_thread.run_sync(stopped)
        assert person.modes() == person.found
        person.process.send_signal(signal.SIGCONT)
        await person.sees("> before")
        await person.type(" and after\r")
        await person.sees("< before and after\r\n")
        await person.type("\x04")
        assert await person.ends() == 0


async def test_a_terminal_is_left_alone_where_json_is_asked_for() -> None:
    """No modes are changed and nothing is drawn."""
    async with serving() as (url, _), at_a_terminal("connect", f"{url}/", "--json") as person:
        await person.sees('"open"')
        assert person.modes() == person.found
        await person.type("hello\n")
        screen = await person.sees('"text": "hello"}')
        assert "\x1b" not in screen
        await person.type("\x04")
        assert await person.ends() == 0


# -- the other commands --------------------------------------------------------------------------


async def test_check_shows_both_sides_and_the_row_and_no_secret() -> None:
    async with serving() as (url, _):
        secrets = ["--header=Authorization: Bearer s3cret", "--header=Cookie: id=s3cret"]
        room = f"{url}/room?token=s3cret"
        done = await run("check", room, "--origin=https://evil.example", *secrets)
        assert done.returncode == 4
        assert "s3cret" not in done.stdout + done.stderr
        assert "> GET /room?token=<redacted> HTTP/1.1\n" in done.stdout
        assert "> Origin: https://evil.example\n" in done.stdout
        assert "> Authorization: <redacted, 13 bytes>\n" in done.stdout
        assert "< HTTP/1.1 403 Forbidden\n" in done.stdout
        assert done.stdout.endswith("refused: 403, by the row 'origins' of its policy\n")
        done = await run("check", room, *secrets, "--show-secrets", "--json")
        assert done.returncode == 0
        document = json.loads(done.stdout)
        assert (document["open"], document["status"], document["row"]) == (True, 101, None)
        assert "Authorization: Bearer s3cret" in document["request"]
        assert "Upgrade: websocket" in document["answer"]


async def test_check_tells_what_kept_it_from_a_proper_answer(nursery: trio.Nursery) -> None:
    """No server, a server of another kind, a hostile one."""
    done = await run("check", "ws://127.0.0.1:1/", "--json")
    assert done.returncode == 3
    assert "refused" in json.loads(done.stdout)["error"].lower()
    for answer, status in ((b"SSH-2.0-\x1b[31m\r\n", 3), (HOSTILE_ANSWER, 4)):

        async def reply(stream: trio.SocketStream, answer: bytes = answer) -> None:
            async with stream:
                await stream.receive_some()
                await stream.send_all(answer)

        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, reply, [listener])
        done = await run("check", f"ws://127.0.0.1:{listener.socket.getsockname()[1]}/")
        assert done.returncode == status
        assert "\x1b" not in done.stdout + done.stderr
    assert r"refused by: \x1b[2Jrow" in done.stdout
    nursery.cancel_scope.cancel()


HOSTILE_ANSWER = (
    b"HTTP/1.1 403 No\r\nX: \x9b1m\r\nSet-Cookie: a=b\r\nContent-Length: 23\r\n\r\n"
    b"no\nrefused by: \x1b[2Jrow\n"
)


async def test_serve_echoes_tells_refusals_and_ends_with_0() -> None:
    async with command_of("serve", "--port=0", "--json") as (process, line):
        url = json.loads(line)["url"]
        async with connect(url) as ws:
            await ws.send("hi")
            assert await ws.receive() == "hi"
            with pytest.raises(Rejected):
                async with connect(url, headers=[("Origin", "https://evil.example")]):
                    pass
            process.send_signal(signal.SIGINT)
            assert (await ws.wait_closed()).code == 1001
        with trio.fail_after(60):
            assert await process.wait() == 0
            errors = b"".join([chunk async for chunk in process.stderr])
    assert b"refused by row 'origins'" in errors


async def test_serve_broadcasts_to_the_others_and_admits_the_origins_named() -> None:
    options = ["--broadcast", "--origin=https://*.example.com"]
    async with command_of("serve", "--port=0", *options) as (_, line):
        url = line.strip()
        page = [("Origin", "https://a.example.com")]
        async with connect(url) as one, connect(url, headers=page) as two:
            await one.ping()
            await two.ping()
            await one.send("from one")
            assert await two.receive() == "from one"
            await two.send(b"from two")
            assert await one.receive() == b"from two"  # and not its own


async def test_a_member_too_slow_for_the_broadcast_is_told_so() -> None:
    """It does not read; the others go on."""
    async with command_of("serve", "--port=0", "--broadcast") as (_, line):
        async with connect(line.strip()) as slow, connect(line.strip()) as fast:
            await slow.ping()
            for _ in range(400):
                await fast.send(b"x" * 65536)
            await fast.ping()
            with pytest.raises(ConnectionClosed) as caught:
                async for _ in slow:
                    pass
            assert caught.value.close.code == 1013
            assert fast.closed is None


async def test_a_port_that_is_taken_is_status_1() -> None:
    async with serving() as (url, _):
        done = await run("serve", "--port", url.rpartition(":")[2])
    assert done.returncode == 1
    assert done.stderr.startswith("trio-ws: cannot listen on 127.0.0.1 port ")


async def test_bench_counts_tells_and_draws(tmp_path: Path) -> None:
    async with serving() as (url, seen):
        load = ["--connections=3", "--in-flight=2", "--size=10", "--seconds=0.2", "--warm-up=0.1"]
        svg = tmp_path / "round trips.svg"
        done = await run("bench", f"{url}/?token=hidden", *load, "--json", "--svg", str(svg))
        assert done.returncode == 0, done.stderr
        assert done.stderr == "", "no bar where nobody looks"
        found = json.loads(done.stdout)
        assert (found["connections"], found["in_flight"], found["size"]) == (3, 2, 10)
        trips = found["round_trip_seconds"]
        assert 0 < trips["p50"] <= trips["p90"] <= trips["p99"] <= trips["p99.9"] <= trips["max"]
        assert found["messages"] > 0
        assert found["messages_per_second"] == pytest.approx(found["messages"] / found["seconds"])
        drawn = ET.parse(svg).getroot()
        bars = drawn.findall(".//{*}rect[@class='bar']/{*}title")
        assert sum(int(bar.text or "") for bar in bars) == found["messages"]
        assert "hidden" not in svg.read_text()
        assert await seen.codes(3) == [1000] * 3


@pytest.mark.parametrize(
    ("path", "words"),
    [("shout", "does not echo"), ("silent", "no echo within"), ("close/1008", "1008")],
)
async def test_bench_without_an_echo_is_void(path: str, words: str) -> None:
    async with serving() as (url, _):
        done = await run("bench", f"{url}/{path}", "--seconds=0.3", "--connections=2")
    assert (done.returncode, done.stdout) == (1, "")
    assert words in done.stderr


async def test_bench_draws_a_bar_for_a_person_and_takes_it_away() -> None:
    async with serving() as (url, _):
        async with at_a_terminal("bench", f"{url}/", "--seconds=0.5") as person:
            assert "\r\x1b[K[" in await person.sees("messages")
            screen = await person.sees("round trip")
            assert screen.rindex("\r\x1b[K") < screen.index("messages/s")
            assert await person.ends() == 0


@asynccontextmanager
async def command_of(*arguments: str) -> AsyncIterator[tuple[Any, str]]:
    """A command that goes on: the process, and its first line."""
    process = await trio.lowlevel.open_process([*COMMAND, *arguments], **PIPES)
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        with trio.fail_after(60):
            line = (await process.stdout.receive_some()).decode()
        yield process, line
    finally:
        if process.returncode is None:
            process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
        await trio.aclose_forcefully(process.stdout)
        await trio.aclose_forcefully(process.stderr)
