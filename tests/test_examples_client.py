"""The examples that connect: echo client, reconnecting client, bridge; each as its own process.

Lives here: what a reader of these three relies on. Must never live here: the library's own rules,
or a look inside the processes.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
import trio

from trio_ws import ConnectionClosed, WebSocket, connect, serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

Runs: TypeAlias = "Callable[..., Any]"

EXAMPLES = Path(__file__).parents[1] / "examples"


@asynccontextmanager
async def serving(handler: Callable[[WebSocket], Awaitable[object]]) -> AsyncIterator[str]:
    """A server of this process, and its URL."""
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, handler, 0, host="127.0.0.1"))
        yield f"ws://127.0.0.1:{server.port}/"
        nursery.cancel_scope.cancel()


async def echo(ws: WebSocket) -> None:
    async for message in ws:
        await ws.send(message)


async def run(example: str, *arguments: str) -> tuple[int, str, str]:
    """Run an example to its end: status, stdout, stderr."""
    command = [sys.executable, "-W", "error", str(EXAMPLES / example), *arguments]
    with trio.fail_after(60):
        done = await trio.run_process(
            command, capture_stdout=True, capture_stderr=True, check=False
        )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


# -- echo_client.py ------------------------------------------------------------------------------


async def test_the_echo_client_prints_what_comes_back() -> None:
    async with serving(echo) as url:
        status, output, errors = await run("echo_client.py", url, "hello", "wörld")
    assert (status, errors) == (0, "")
    assert output.startswith("hello\nwörld\nround trip of a ping: 0.")


async def test_the_echo_client_says_what_went_wrong_without_a_traceback() -> None:
    """Nobody there, nobody who answers, somebody who leaves."""

    async def leave(ws: WebSocket) -> None:
        await ws.close(4000, "not today")

    async def be_silent(ws: WebSocket) -> None:
        await ws.wait_closed()

    status, output, errors = await run("echo_client.py", "ws://127.0.0.1:1/")
    assert (status, output) == (1, "")
    assert errors.startswith("not connected: ")
    async with serving(leave) as url:
        status, _, errors = await run("echo_client.py", url)
        assert status == 1
        assert errors.startswith("the connection ended: 4000 ")
    async with serving(be_silent) as url:
        assert await run("echo_client.py", url, "--patience=0.1") == (1, "", "no answer\n")


# -- reconnecting_client.py ----------------------------------------------------------------------


class Lines:
    """What a process prints, line by line."""

    def __init__(self, process: trio.Process) -> None:
        assert process.stdout is not None
        self._stream = process.stdout
        self._rest = b""

    async def next(self) -> str:
        with trio.fail_after(60):
            while b"\n" not in self._rest:
                data = await self._stream.receive_some()
                assert data, "it ended"
                self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()


@asynccontextmanager
async def following(url: str) -> AsyncIterator[tuple[trio.Process, Lines]]:
    """The reconnecting client as a process."""
    example = [str(EXAMPLES / "reconnecting_client.py"), url, "--greeting=hello"]
    process = await trio.lowlevel.open_process(
        [sys.executable, "-W", "error", *example], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        yield process, Lines(process)
    finally:
        if process.returncode is None:
            process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
        await trio.aclose_forcefully(process.stdout)


async def test_the_reconnecting_client_comes_back_until_it_is_over() -> None:
    """Going away, an error, a normal closure: it comes back after the first two."""
    codes = iter([1001, 1011, 1000])
    greetings: list[str | bytes] = []

    async def send_away(ws: WebSocket) -> None:
        greetings.append(await ws.receive())
        await ws.send(f"number {len(greetings)}")
        await ws.close(next(codes))

    async with serving(send_away) as url, following(url) as (process, lines):
        for number, code in enumerate((1001, 1011, 1000), start=1):
            assert await lines.next() == "connected"
            assert await lines.next() == f"number {number}"
            assert (await lines.next()).startswith(f"gone: {code} ")
        with trio.fail_after(60):
            assert await process.wait() == 0
    assert greetings == ["hello"] * 3


async def test_the_reconnecting_client_leaves_on_a_signal_and_says_so() -> None:
    ends: list[int] = []

    async def watch(ws: WebSocket) -> None:
        ends.append((await ws.wait_closed()).code)

    async with serving(watch) as url, following(url) as (process, lines):
        assert await lines.next() == "connected"
        process.send_signal(signal.SIGTERM)
        with trio.fail_after(60):
            assert await process.wait() == 0
    assert ends == [1001]


# -- proxy_bridge.py -----------------------------------------------------------------------------


@asynccontextmanager
async def tcp_server(
    handler: Callable[[trio.SocketStream], Awaitable[object]],
) -> AsyncIterator[int]:
    """A TCP server of this process, and its port."""
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, handler, listeners)
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def tcp_echo(stream: trio.SocketStream) -> None:
    async for data in stream:
        await stream.send_all(data)


async def receive_exactly(stream: trio.SocketStream, size: int) -> bytes:
    got = bytearray()
    with trio.fail_after(60):
        while len(got) < size and (data := await stream.receive_some()):
            got += data
    return bytes(got)


async def test_two_bridges_carry_tcp_through_a_websocket_unharmed(running: Runs) -> None:
    """A megabyte each way at once: no direction waits for the other."""
    async with tcp_server(tcp_echo) as port:
        options = ["--port=0", f"--to=tcp://127.0.0.1:{port}"]
        async with running("proxy_bridge.py", *options) as inner:
            assert inner.line.startswith("listening on ws://127.0.0.1:")
            to = f"--to={inner.line.removeprefix('listening on ')}/"
            async with running("proxy_bridge.py", "--port=0", to) as outer:
                assert outer.line.startswith("listening on tcp://127.0.0.1:")
                payload = bytes(range(256)) * 4096
                async with await trio.open_tcp_stream("127.0.0.1", outer.port) as stream:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(stream.send_all, payload)
                        assert await receive_exactly(stream, len(payload)) == payload


async def test_the_end_of_either_side_ends_the_other(running: Runs) -> None:
    """The TCP side's end is a normal closure; the WebSocket's end is the end of the stream."""
    ended = trio.Event()

    async def say_and_leave(stream: trio.SocketStream) -> None:
        if await stream.receive_some() == b"leave":
            await stream.send_all(b"bye")
            return
        assert await stream.receive_some() == b""
        ended.set()

    async with tcp_server(say_and_leave) as port:
        options = ["--port=0", f"--to=tcp://127.0.0.1:{port}"]
        async with running("proxy_bridge.py", *options) as proxy:
            url = proxy.line.removeprefix("listening on ")
            async with connect(url) as ws:
                await ws.send(b"leave")
                assert await ws.receive() == b"bye"
                assert (await ws.wait_closed()).code == 1000
            async with connect(url) as ws:
                await ws.send(b"stay")
                await ws.close(1000)
            with trio.fail_after(60):
                await ended.wait()


async def test_the_bridge_says_why_it_cannot(running: Runs) -> None:
    """Text is refused with 1003, a TCP side that is not there with 1014."""
    async with tcp_server(tcp_echo) as port:
        options = ["--port=0", f"--to=tcp://127.0.0.1:{port}"]
        async with running("proxy_bridge.py", *options) as proxy:
            async with connect(proxy.line.removeprefix("listening on ")) as ws:
                await ws.send("text")
                with pytest.raises(ConnectionClosed) as caught:
                    await ws.receive()
                assert caught.value.close.code == 1003
    async with running("proxy_bridge.py", "--port=0", "--to=tcp://127.0.0.1:1") as proxy:
        async with connect(proxy.line.removeprefix("listening on ")) as ws:
            assert (await ws.wait_closed()).code == 1014


async def test_a_signal_tells_both_sides_of_the_bridge(running: Runs) -> None:
    """The WebSocket hears 1001, TCP its end, and the status is 0."""
    seen: list[bytes] = []

    async def keep(stream: trio.SocketStream) -> None:
        seen.append(await stream.receive_some())
        await stream.send_all(b"here")
        seen.append(await stream.receive_some())

    async with tcp_server(keep) as port:
        options = ["--port=0", f"--to=tcp://127.0.0.1:{port}"]
        async with running("proxy_bridge.py", *options) as proxy:
            async with connect(proxy.line.removeprefix("listening on ")) as ws:
                await ws.send(b"there?")
                assert await ws.receive() == b"here"
                proxy.stop(signal.SIGTERM)
                assert (await ws.wait_closed()).code == 1001
                assert await proxy.process.wait() == 0
        assert seen == [b"there?", b""]
