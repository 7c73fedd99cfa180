"""Fixtures that more than one test file needs, and how hypothesis behaves here.

Lives here: certificates, profiles, running an example as its own process, fixtures over the modules
`*_world` beside it. Must never live here: a helper that one file uses (it belongs there), or a few
that go together (a `*_world`), or a peer or stream double (`trio_ws.testing` has them, users need
them too).
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
from typing import TYPE_CHECKING

import hypothesis
import pytest
import trio
import trio.testing
import trustme

from trio_ws.testing import RawPeer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from .server_world import Served

TESTS = Path(__file__).parent
EXAMPLES = TESTS.parent / "examples"
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
    # What they assert should be explained on failure, as if it stood in the test.
    pytest.register_assert_rewrite(
        *(f"{__package__}.{path.stem}" for path in TESTS.glob("*_world.py"))
    )


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


@pytest.fixture
def served(nursery: trio.Nursery) -> Served:
    """A server in memory; the test starts it."""
    from .server_world import Served

    return Served(nursery)


@pytest.fixture(params=["memory", "sockets", "tls"])
def pair(
    request: pytest.FixtureRequest,
    server_ssl_context: ssl.SSLContext,
    client_ssl_context: ssl.SSLContext,
) -> Callable[[], tuple[trio.abc.Stream, trio.abc.Stream]]:
    """How a server's stream and its client's are made; TLS shakes hands at the first byte."""
    from .attendant_world import sockets

    def tls() -> tuple[trio.abc.Stream, trio.abc.Stream]:
        near, far = trio.testing.memory_stream_pair()
        return (
            trio.SSLStream(near, server_ssl_context, server_side=True, https_compatible=True),
            trio.SSLStream(
                far, client_ssl_context, server_hostname="localhost", https_compatible=True
            ),
        )

    return {"memory": trio.testing.memory_stream_pair, "sockets": sockets, "tls": tls}[
        request.param
    ]
