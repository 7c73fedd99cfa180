"""Fixtures that more than one test file needs, and how hypothesis behaves here.

Lives here: certificates, profiles, a server in memory, running an example as its own process. Must
never live here: a helper that only one file uses (it belongs there), or a peer or stream double
(`trio_ws.testing` has them, users need them too).
"""

from __future__ import annotations

import os
import signal
import ssl
import subprocess
import sys
import tempfile
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
import trio
import trio.testing
import trustme

from trio_ws import Limits, Server, WebSocket, serve_listeners
from trio_ws.testing import RawPeer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

EXAMPLES = Path(__file__).parents[1] / "examples"
NO_ENV: Mapping[str, str] = MappingProxyType({})

# Wall-clock deadlines would make a property fail on a busy machine only.
hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.register_profile("nightly", deadline=None, max_examples=2000)
hypothesis.settings.load_profile("default")


def pytest_configure() -> None:
    """A shell starts what it runs in the background with SIGINT ignored, and children inherit that;
    what interrupts do here must not depend on it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def ca() -> trustme.CA:
    """A certificate authority of this run."""
    return trustme.CA()


@pytest.fixture(scope="session")
def server_ssl_context(ca: trustme.CA) -> ssl.SSLContext:
    """The server's side of TLS, for `localhost`, 127.0.0.1 and ::1."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost", "127.0.0.1", "::1").configure_cert(context)
    return context


@pytest.fixture(scope="session")
def client_ssl_context(ca: trustme.CA) -> ssl.SSLContext:
    """A client that trusts `ca` and nothing else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ca.configure_trust(context)
    return context


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
async def run_example(
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


@pytest.fixture
def running() -> Callable[..., AbstractAsyncContextManager[Running]]:
    """`run_example`: an example as a process of its own."""
    return run_example


async def echo(ws: WebSocket) -> None:
    async for message in ws:
        await ws.send(message)


class MemoryListener(trio.abc.Listener[trio.abc.Stream]):
    """Accepts what `put` and `connect` put in."""

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[Any](1000)
        self.closed = False

    def connect(self) -> trio.StapledStream[Any, Any]:
        ours, theirs = trio.testing.memory_stream_pair()
        self.put(theirs)
        return ours

    def put(self, stream: trio.abc.Stream) -> None:
        self._send.send_nowait(stream)

    async def accept(self) -> trio.abc.Stream:
        return await self._receive.receive()  # type: ignore[no-any-return]

    async def aclose(self) -> None:
        self.closed = True
        self._receive.close()
        await trio.lowlevel.checkpoint()


class Served:
    """A server in memory, in the nursery of the test; and when `serve_listeners` returned.

    Its clocks stand still: no pings, and a close that nobody answers is waited for.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.listener = MemoryListener()
        self.scope = trio.CancelScope()
        self.returned_at: float | None = None
        self.server: Server

    async def start(self, handler: Any = echo, **options: Any) -> None:
        options.setdefault("limits", Limits(close_timeout=1000, cancel_grace=0, ping_interval=None))

        async def run(task_status: trio.TaskStatus[Server]) -> None:
            with self.scope:
                await serve_listeners(handler, [self.listener], task_status=task_status, **options)
                self.returned_at = trio.current_time()

        self.server = await self.nursery.start(run)

    async def peers(self, count: int) -> list[RawPeer]:
        found = []
        for _ in range(count):
            found.append(RawPeer(self.listener.connect()))
            await found[-1].request()
        return found


@pytest.fixture
def served(nursery: trio.Nursery) -> Served:
    """A server in memory; the test starts it."""
    return Served(nursery)
