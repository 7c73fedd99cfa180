"""The measured window: who used how much of a processor, and how long it was.

Lives here: the clocks. Must never live here: what happens inside the window, statistics over
several of them.
"""

from __future__ import annotations

import gc
import time
from typing import TYPE_CHECKING, Protocol, Self

from benchmarks.connections import LoadError
from benchmarks.report import percentile

if TYPE_CHECKING:
    from collections.abc import Sequence


class Server(Protocol):
    """What a load has to know about the server; see `servers.ServerProcess`."""

    @property
    def port(self) -> int: ...

    @property
    def unmasks(self) -> bool: ...

    def cpu_seconds(self) -> float: ...

    def private_bytes(self) -> int: ...


class Window:
    """``with Window(server) as window:`` measures its block; no garbage is collected meanwhile.

    Attributes:
        seconds: how long the block really took.
        server_cpu, load_cpu: CPU seconds the two processes used in it.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self.seconds = self.server_cpu = self.load_cpu = 0.0

    def __enter__(self) -> Self:
        gc.collect()
        gc.disable()  # the list of latencies grows: a collection would show up as latency
        self._began = self._server.cpu_seconds(), time.process_time(), time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        now = time.perf_counter()
        own, server = time.process_time(), self._server.cpu_seconds()
        gc.enable()
        self.server_cpu = server - self._began[0]
        self.load_cpu = own - self._began[1]
        self.seconds = now - self._began[2]

    def values(
        self, count: int, one: str, many: str, latencies: Sequence[tuple[float, int]]
    ) -> dict[str, float]:
        """What the window says about `count` things, and how long they took.

        Raises:
            LoadError: nothing happened at all.
        """
        if not count:
            raise LoadError(f"no {one} within {self.seconds:.1f} seconds")
        return {
            f"{many}/s": count / self.seconds,
            f"CPU us/{one}": self.server_cpu / count * 1e6,
            "p50 us": percentile(latencies, 0.50) * 1e6,
            "p99 us": percentile(latencies, 0.99) * 1e6,
            "server CPU": self.server_cpu / self.seconds,
            "load CPU": self.load_cpu / self.seconds,
        }
