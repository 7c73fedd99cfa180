"""The servers under measurement: one table of them, one process each.

Lives here: what is known about each server, and the process around it, seen from both sides.
Must never live here: what a user writes with a library (`trio_servers`, `asyncio_servers`), load,
statistics; an import of a library under measurement, so that a process holds only the one it runs.

Run ``python -m benchmarks.servers NAME echo`` to get one by hand: it prints its port and serves
until its standard input ends, `LIFETIME` at the most.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import importlib.metadata
import importlib.util
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

ROOT: Final = Path(__file__).resolve().parent.parent
LIFETIME: Final = 300
"""Seconds after which a forgotten server ends by itself."""
START_TIMEOUT: Final = 20.0
SAID_LINES: Final = 10
"""Of what a server wrote on standard error, shown where it failed."""

Role: TypeAlias = Literal["echo", "room"]
"""What a server does with a message: send it back, or send it to everybody connected."""

Serve: TypeAlias = "Callable[[Role, Callable[[int], None]], Awaitable[None]]"
"""Listen on a free port of 127.0.0.1, report it to the callback, serve in that role for ever."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Adapter:
    """One server.

    Attributes:
        distribution: the package whose version is printed.
        loop: what runs it; its function is in the module ``<loop>_servers``.
        function: the name of a `Serve` there.
        room: how it tells one message to many; None if it has no such role.
        unmasks: whether the reply to a frame is that frame unmasked (a WebSocket server) or the
            very bytes that were sent (the raw echo).
        library: whether it is one of the trio libraries that `trio_ws` is compared with.
    """

    distribution: str
    loop: Literal["trio", "asyncio"]
    function: str
    room: str | None = None
    unmasks: bool = True
    library: bool = False

    def serve(self) -> Serve:
        """The function itself; imports the module of its loop, and no library yet."""
        module = importlib.import_module(f"benchmarks.{self.loop}_servers")
        function: Serve = getattr(module, self.function)
        return function

    def version(self) -> str | None:
        """The installed version; "source tree" if only importable; None if it is not there."""
        try:
            return importlib.metadata.version(self.distribution)
        except importlib.metadata.PackageNotFoundError:
            module = self.distribution.replace("-", "_")
            return "source tree" if importlib.util.find_spec(module) else None


ADAPTERS: Final[Mapping[str, Adapter]] = MappingProxyType(
    {
        "raw": Adapter(distribution="trio", loop="trio", function="serve_raw", unmasks=False),
        "wsproto": Adapter(distribution="wsproto", loop="trio", function="serve_wsproto"),
        "trio-websocket": Adapter(
            distribution="trio-websocket",
            loop="trio",
            function="serve_trio_websocket",
            room="a loop",
            library=True,
        ),
        "websockets": Adapter(
            distribution="websockets",
            loop="trio",
            function="serve_websockets",
            room="broadcast",
            library=True,
        ),
        "websockets-asyncio": Adapter(
            distribution="websockets",
            loop="asyncio",
            function="serve_websockets",
            room="broadcast",
        ),
        "aiohttp": Adapter(
            distribution="aiohttp", loop="asyncio", function="serve_aiohttp", room="a loop"
        ),
        "picows": Adapter(
            distribution="picows", loop="asyncio", function="serve_picows", room="a loop"
        ),
        "trio_ws": Adapter(
            distribution="trio-ws", loop="trio", function="serve_trio_ws", room="Room.publish"
        ),
    }
)
"""Every server by the name it has on the command line and in the tables."""


class ServerFailed(Exception):
    """A server process did not come up."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerProcess:
    """A server that runs in a process of its own. Valid inside `running` only."""

    pid: int
    port: int
    unmasks: bool

    def cpu_seconds(self) -> float:
        """CPU time of the process so far, user and system, all threads (clock_getcpuclockid).

        Read from outside through Linux' numbering of process clocks, in nanoseconds: the server
        runs no line of code for it, unlike with a question over a pipe, and /proc/PID/stat counts
        in hundredths of a second.
        """
        return time.clock_gettime((~self.pid << 3) | 2)

    def private_bytes(self) -> int:
        """Memory that is this process' own (clean and dirty), without the kernel's buffers."""
        text = Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        sizes = re.findall(r"^Private_\w+: +(\d+) kB$", text, re.MULTILINE)
        return sum(map(int, sizes)) * 1024


@contextmanager
def running(name: str, role: Role, *, core: int | None) -> Iterator[ServerProcess]:
    """Start the server `name` pinned to `core` (None: wherever), and kill it with the block.

    Killed, because how a server ends is not measured, and none has to end thousands of
    connections one by one before the next can start.

    An exception that leaves the block carries, as a note, what the server said last.

    Raises:
        ServerFailed: it ended or said nothing within `START_TIMEOUT` seconds.
    """
    command = [sys.executable, "-m", "benchmarks.servers", name, role]
    if core is not None:
        command += ["--core", str(core)]
    with TemporaryFile("w+") as said:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,  # a file: nobody who logs is as slow as the terminal
            text=True,
        )
        try:
            yield ServerProcess(
                pid=process.pid, port=_port_of(process), unmasks=ADAPTERS[name].unmasks
            )
        except Exception as exc:
            said.seek(0)
            exc.add_note("".join(said.readlines()[-SAID_LINES:]) or "the server said nothing")
            raise
        finally:
            process.kill()
            process.communicate()


def _port_of(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], START_TIMEOUT)
    line = process.stdout.readline() if ready else ""
    if not line:
        raise ServerFailed(f"no port within {START_TIMEOUT:.0f} seconds")
    return int(line)


def _end_with_input() -> None:
    """End this process when nobody holds the other end of its standard input any more."""
    while os.read(0, 4096):
        pass
    os._exit(0)


def _report(port: int) -> None:
    print(port, flush=True)


def main(arguments: list[str] | None = None) -> None:
    """Serve one adapter until standard input ends."""
    parser = argparse.ArgumentParser(description="One server on a free port of 127.0.0.1.")
    parser.add_argument("name", choices=ADAPTERS)
    parser.add_argument("role", choices=("echo", "room"))
    parser.add_argument("--core", type=int, help="the only core it may use")
    options: Any = parser.parse_args(arguments)
    if options.core is not None:
        os.sched_setaffinity(0, {options.core})
    signal.alarm(LIFETIME)
    # A thread, so that one frame fits both loops: blocked in its read it costs nothing.
    threading.Thread(target=_end_with_input, daemon=True).start()
    adapter = ADAPTERS[options.name]
    serve: Any = adapter.serve()
    if adapter.loop == "trio":
        importlib.import_module("trio").run(serve, options.role, _report)
    else:
        asyncio.run(serve(options.role, _report))


if __name__ == "__main__":
    main()
