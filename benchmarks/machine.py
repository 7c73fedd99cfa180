"""What the run stands on: cores, kernel, Python, versions.

Lives here: what somebody needs to know to repeat a run, and which core does what. Must never live
here: measurements.
"""

from __future__ import annotations

import importlib
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from benchmarks import servers

if TYPE_CHECKING:
    from collections.abc import Iterable


class Cores(NamedTuple):
    """Which core does what (None: not pinned), and what the reader should know about it."""

    server: int | None
    load: int | None
    note: str


def choose_cores() -> Cores:
    """Two cores that share nothing, if this process may use two such."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        return Cores(
            None, None, "ONE CORE ONLY: server and load take turns on it; only CPU ratios mean much"
        )
    server = allowed[-1]
    siblings = _siblings(server)
    apart = [core for core in allowed[:-1] if core not in siblings]
    if apart:
        return Cores(server, apart[0], f"server on core {server}, load on core {apart[0]}")
    note = f"server on core {server}, load on {allowed[0]}: HYPERTHREADS OF ONE CORE, they disturb"
    return Cores(server, allowed[0], note)


def _siblings(core: int) -> set[int]:
    path = Path(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list")
    try:
        text = path.read_text()
    except OSError:
        return {core}
    siblings: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        siblings.update(range(int(first), int(last or first) + 1))
    return siblings


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def versions(names: Iterable[str]) -> str:
    """Each distribution once, trio always; behind `trio_ws` the engine of its frames."""
    adapters = [servers.ADAPTERS[name] for name in ("raw", *names)]
    found = {adapter.distribution: adapter.version() for adapter in adapters}
    if "trio-ws" in found:
        engine = importlib.import_module("trio_ws").ENGINE
        found["trio-ws"] = f"{found['trio-ws']} ({engine} engine)"
    return ", ".join(f"{name} {version}" for name, version in found.items())


def describe(cores: Cores, names: Iterable[str]) -> dict[str, str]:
    """The machine and what is installed on it, before the run."""
    return {
        "machine": f"{_processor()}, {os.cpu_count()} CPUs, {platform.system()} "
        f"{platform.release()}",
        "cores": cores.note,
        "load average": " ".join(f"{value:.2f}" for value in os.getloadavg()),
        "python": f"{platform.python_implementation()} {platform.python_version()}, asyncio's "
        "own loop",
        "versions": versions(names),
    }
