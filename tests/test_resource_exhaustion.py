"""A server process out of descriptors, or at its cap, under more clients than fit."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
import time
from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from trio_ws.testing import RawPeer, upgrade_head

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="setrlimit")

CLIENTS = 90

SERVER = r"""
import logging, resource, sys, time
import trio
from trio_ws import Limits, serve

descriptors, cap = int(sys.argv[1]), int(sys.argv[2]) or None
resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))
logging.basicConfig(level=logging.WARNING, stream=sys.stdout, format="LOG %(created)f %(message)s")

async def echo(ws):
    async for message in ws:
        await ws.send(message)

async def main():
    async with trio.open_nursery() as nursery:
        async def run(task_status):
            limits = Limits(max_connections=cap, cancel_grace=0)
            await serve(echo, 0, host="127.0.0.1", limits=limits, task_status=task_status)
        server = await nursery.start(run)
        print("PORT", server.port, flush=True)
        while await trio.to_thread.run_sync(sys.stdin.readline) == "cpu\n":
            print("CPU", time.process_time(), flush=True)
        nursery.cancel_scope.cancel()

trio.run(main)
"""


class Process:
    """The server in a process of its own, with everything it printed when it is over."""

    def __init__(self, process: trio.Process, port: int) -> None:
        self.process = process
        self.port = port
        self.output = ""

    async def dial(self) -> RawPeer:
        return RawPeer(await trio.open_tcp_stream("127.0.0.1", self.port))

    async def ask_cpu(self) -> None:
        """Have it print the processor time it has used."""
        assert self.process.stdin is not None
        await self.process.stdin.send_all(b"cpu\n")

    async def finish(self) -> None:
        """End it in good order and read its output."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        await self.process.stdin.send_all(b"end\n")
        async for chunk in self.process.stdout:
            self.output += chunk.decode()
        assert await self.process.wait() == 0, self.output

    @property
    def cpu_times(self) -> list[float]:
        return [float(found) for found in re.findall(r"^CPU ([0-9.]+)", self.output, re.MULTILINE)]

    @property
    def log_times(self) -> list[float]:
        return [float(found) for found in re.findall(r"^LOG ([0-9.]+) ", self.output, re.MULTILINE)]


@asynccontextmanager
async def server_process(*, descriptors: int, cap: int = 0) -> AsyncIterator[Process]:
    command = [sys.executable, "-u", "-c", SERVER, str(descriptors), str(cap)]
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:

            async def run(task_status: trio.TaskStatus[trio.Process]) -> None:
                await trio.run_process(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    check=False,
                    task_status=task_status,
                )

            process = await nursery.start(run)
            line = b""
            while not line.endswith(b"\n"):
                line += await process.stdout.receive_some(1)
            yield Process(process, int(line.split()[1]))
            nursery.cancel_scope.cancel()


async def talks(peer: RawPeer) -> bool:
    """Whether the peer gets a reply to a message."""
    await peer.send_message("hello")
    with trio.move_on_after(10):
        return await peer.receive_message() == "hello"
    return False


@pytest.mark.row("E12")
async def test_out_of_descriptors_the_server_waits_without_spinning_and_recovers() -> None:
    """60 descriptors, 90 clients: those inside are served, the log has at most a line a second,
    the processor idles; when some leave, those outside get in."""
    async with server_process(descriptors=60) as server:
        peers = [await server.dial() for _ in range(CLIENTS)]
        for peer in peers:
            await peer.send_raw(upgrade_head())
        inside: list[RawPeer] = []
        for peer in peers:
            with trio.move_on_after(0.5 if len(inside) < 30 else 0.02):
                await peer.receive_head()
                inside.append(peer)
        assert 30 <= len(inside) < 60
        await server.ask_cpu()
        began = time.monotonic()
        while time.monotonic() - began < 3:
            assert await talks(inside[0])
            await trio.sleep(0.2)
        await server.ask_cpu()
        outside = [peer for peer in peers if peer not in inside]
        for peer in inside:
            await peer.aclose()
        with trio.fail_after(20):
            for peer in outside:
                await peer.receive_head()
                assert await talks(peer)
        for peer in outside:
            await peer.aclose()
        await server.finish()
        times = server.log_times
        assert times, "it did run out"
        assert "EMFILE" in server.output
        assert "Traceback" not in server.output
        gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
        assert all(gap > 0.95 for gap in gaps), gaps
        before, after = server.cpu_times
        assert after - before < 1, "it spun through most of three seconds"


@pytest.mark.row("E12")
async def test_at_the_cap_clients_are_told_503_or_wait() -> None:
    """A cap of 10 and 90 clients, silent ones among those inside: 64 of the others are told 503
    and leave, which lets the rest hear the same."""
    async with server_process(descriptors=256, cap=10) as server:
        with ExitStack() as open_streams:
            peers = [await server.dial() for _ in range(CLIENTS)]
            for peer in peers:
                open_streams.callback(peer.stream.socket.close)  # type: ignore[attr-defined]
            for peer in peers[5:]:  # five silent ones count
                await peer.send_raw(upgrade_head())
            statuses = []
            with trio.fail_after(20):
                for peer in peers[5:]:
                    statuses.append((await peer.receive_head()).split(b" ")[1])
                    if statuses[-1] == b"503":
                        await peer.aclose()
            assert statuses.count(b"101") == 5
            assert statuses.count(b"503") == CLIENTS - 10
            assert await talks(peers[5])
            await peers[0].aclose()
            with trio.fail_after(20):
                while True:
                    late = await server.dial()
                    open_streams.callback(late.stream.socket.close)  # type: ignore[attr-defined]
                    await late.send_raw(upgrade_head())
                    if (await late.receive_head()).startswith(b"HTTP/1.1 101 "):
                        break
            assert await talks(late)
        await server.finish()
        assert "LOG" not in server.output
