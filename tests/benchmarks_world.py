"""What the tests of the benchmarks share: its modules, and servers that do what they should not.

Lives here: importing what is no part of the package, a server in the test's own process. Must never
live here: a test, a fixture (conftest.py).
"""

from __future__ import annotations

import contextlib
import importlib
import select
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

linux = pytest.mark.skipif(not hasattr(select, "epoll"), reason="the load is for Linux")
MESSAGE = ["messages/s", "CPU us/message", "p50 us", "p99 us", "server CPU", "load CPU"]
"""The quantities of an echo."""

_MODULES = (
    *("broadcast", "bulk", "connections", "echo", "frames", "handshakes", "load", "machine"),
    *("population", "report", "servers", "suites"),
)


def modules(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The modules of `benchmarks/`, the command as `command`. Nobody warms up or waits."""
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parent.parent))
    found = {name: importlib.import_module(f"benchmarks.{name}") for name in _MODULES}
    for name in ("echo", "broadcast", "population"):
        monkeypatch.setattr(found[name], "WARM_UP", 0.02)
    monkeypatch.setattr(found["population"], "SETTLE", 0.0)
    monkeypatch.setattr(found["handshakes"], "WARM_UP", 10)
    return SimpleNamespace(command=importlib.import_module("benchmarks.__main__"), **found)


@dataclass
class Fake:
    """A server in this process: what a suite asks of one, without a process to look at."""

    port: int
    unmasks: bool = True

    def cpu_seconds(self) -> float:
        return 0.0

    def private_bytes(self) -> int:
        return 0


@contextlib.contextmanager
def serving(talk: Callable[[socket.socket], object], upgrade: bytes) -> Iterator[Fake]:
    """One connection at a time: reads a head, says `upgrade`, then talks."""

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, contextlib.suppress(OSError):
                    connection.recv(65536)
                    connection.sendall(upgrade)
                    talk(connection)
                    while connection.recv(65536):
                        pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield Fake(port=listener.getsockname()[1])
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def answering(reply: bytes) -> Callable[[socket.socket], object]:
    def talk(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(reply)

    return talk


def exchange_of(bench: Any, size: int = 32) -> Any:
    return bench.frames.Exchange.of(size=size, unmasks=True)
