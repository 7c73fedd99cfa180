"""The chat in several processes on one port: starts them, replaces them, ends them.

    python run_cluster.py --workers 4 --port 8000 --redis redis://127.0.0.1:6379

Lives here: processes and signals. Must never live here: connections; the workers share the port
(SO_REUSEPORT), and the kernel shares out who connects.

A worker that dies is started again. SIGTERM or SIGINT: the workers drain one after another, so that
pages find another worker for as long as there is one. SIGHUP: each worker is replaced by a new one,
which listens before the old one drains: nobody who reconnects finds a closed door.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import trio

SERVER = Path(__file__).parent / "server.py"
START_WITHIN = 20.0  # seconds
END_WITHIN = 20.0  # seconds; a drain takes 10 at most
PAUSE = 1.0  # seconds before a dead worker is started again: what kills it may do so again at once


class Worker:
    """One process of the chat, and whether it was told to end."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.retired = False

    async def wait_until_it_listens(self) -> bool:
        """Whether it does: it prints a line then."""
        assert self.process.stdout is not None
        with trio.move_on_after(START_WITHIN):
            return b"listening on" in await self.process.stdout.receive_some()
        return False

    async def drain(self) -> None:
        """End it politely; by force if that takes too long."""
        self.retired = True
        self.process.terminate()
        with trio.move_on_after(END_WITHIN):
            await self.process.wait()
        self.process.kill()


class Cluster:
    """The workers. `command` starts one."""

    def __init__(self, command: list[str], nursery: trio.Nursery) -> None:
        self._command = command
        self._nursery = nursery
        self._workers: list[Worker] = []

    async def start_worker(self) -> None:
        """Start one worker and return when it listens; it is kept alive from now on."""
        process = await trio.lowlevel.open_process(self._command, stdout=subprocess.PIPE)
        worker = Worker(process)
        self._workers.append(worker)
        self._nursery.start_soon(self._watch, worker)
        if not await worker.wait_until_it_listens():
            process.kill()  # and `_watch` starts another one

    async def _watch(self, worker: Worker) -> None:
        try:
            status = await worker.process.wait()
        finally:
            worker.process.kill()  # the cluster failed: leave no orphans
            self._workers.remove(worker)
        if not worker.retired:
            print(f"worker {worker.process.pid} died ({status}); starting another", flush=True)
            await trio.sleep(PAUSE)
            await self.start_worker()

    async def replace_all(self) -> None:
        """A rolling restart."""
        for worker in list(self._workers):
            if worker.process.returncode is None:
                await self.start_worker()
                await worker.drain()
        print("all workers are new", flush=True)

    async def end(self) -> None:
        """Drain all, one after another."""
        while self._workers:
            worker = self._workers[0]
            await worker.drain()
            while worker in self._workers:
                await trio.lowlevel.checkpoint()


def reserve(host: str, port: int) -> socket.socket:
    """Hold the port for the workers without listening on it: no connection gets here."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    held = socket.socket(family)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    held.bind((host, port))
    return held


async def main(args: argparse.Namespace, more: list[str]) -> None:
    """Run the workers until a signal ends them."""
    with (
        reserve(args.host, args.port) as held,
        trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals,
    ):
        port = held.getsockname()[1]
        command = [sys.executable, str(SERVER), "--host", args.host, "--port", str(port)]
        command += ["--reuse-port", "--redis", args.redis, *more]
        async with trio.open_nursery() as nursery:
            cluster = Cluster(command, nursery)
            for _ in range(args.workers):
                await cluster.start_worker()
            shown = f"[{args.host}]" if ":" in args.host else args.host
            print(f"listening on http://{shown}:{port}", flush=True)
            async for signum in signals:
                if signum == signal.SIGHUP:
                    await cluster.replace_all()
                else:
                    await cluster.end()
                    nursery.cancel_scope.cancel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description="The chat in several processes.", epilog="Other options go to server.py."
    )
    add = parser.add_argument
    add("--workers", type=int, default=os.cpu_count() or 1, help="processes (%(default)s)")
    add("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    add("--port", type=int, default=8000, help="0: any (%(default)s)")
    add("--redis", metavar="URL", default="redis://127.0.0.1:6379", help="(%(default)s)")
    trio.run(main, *parser.parse_known_args())
