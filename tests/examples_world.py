"""What the tests of the examples share: running one as its own process, and talking to it.

Lives here: a process for one test (`run_example`) and for several (`standing`). Must never live
here: a test, a fixture (conftest.py).
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import trio

from trio_ws.testing import RawPeer

EXAMPLES = Path(__file__).parents[1] / "examples"
NO_ENV: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back for one request: status, head, and all that followed if it was no 101."""

    status: int
    head: bytes
    body: bytes


@dataclass(kw_only=True)
class Running:
    """An example in its own process; `line` is what it printed, `errors` its stderr at the end.

    Where several tests share the process, `suffix` tells their names (of rooms, say) apart.
    """

    process: Any
    line: str
    errors: str = ""
    suffix: str = ""
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

    async def leave(self) -> None:
        """Be gone, without a word."""
        for peer in self.peers:
            await trio.aclose_forcefully(peer.stream)

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
                await server.leave()
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


Visit = Callable[[], AbstractAsyncContextManager[Running]]


@contextmanager
def standing(example: str, *options: str, env: Mapping[str, str] = NO_ENV) -> Iterator[Visit]:
    """Run an example for several tests, each of which visits it, until SIGTERM. Held to the same
    as by `run_example`, to silence already after each visit."""
    command = [sys.executable, "-W", "error", str(EXAMPLES / example), *options]
    with tempfile.TemporaryFile() as errors:

        def complaints() -> str:
            # Not `read`: the process writes where the file it shares with us was read to.
            return os.pread(errors.fileno(), 100_000, 0).decode()

        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, env={**os.environ, **env}
        ) as process:
            try:
                assert process.stdout is not None
                output = process.stdout.readline().decode()
                assert output.endswith("\n"), complaints()
                line = output.removesuffix("\n")
                numbers = itertools.count(1)

                @asynccontextmanager
                async def visit() -> AsyncIterator[Running]:
                    with trio.fail_after(60):
                        server = Running(process=process, line=line, suffix=f"-{next(numbers)}")
                        try:
                            yield server
                        finally:
                            await server.leave()
                    assert process.poll() is None
                    assert not complaints(), complaints()

                yield visit
                process.send_signal(signal.SIGTERM)
                assert process.communicate(timeout=60)[0] == b"", "it printed more than one line"
                assert process.returncode == 0
                assert not complaints(), complaints()
            finally:
                process.kill()
