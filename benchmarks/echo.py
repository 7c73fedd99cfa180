"""One command: how fast do these servers echo small messages, and at what cost?

    python benchmarks/echo.py            # all servers, all cases, about two minutes

Lives here: the command line, which core does what, the order of the runs.
Must never live here: what is measured (`load`), of whom (`servers`), what is made of it (`report`).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any, Final, NamedTuple

if __name__ == "__main__" and not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import frames, load, report, servers  # found through the line above

CASES: Final = ("1x1", "100x1", "16x16")
SERVERS: Final = ("raw", "trio-websocket", "websockets", "trio_ws")
WARM_UP: Final = 0.3
MAX_SECONDS: Final = 10.0
"""Longer windows would meet the servers' keepalive pings, which the load does not understand."""


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


def measure_once(
    name: str, case: load.Case, repeat: int, cores: Cores, options: argparse.Namespace
) -> report.Measurement:
    """A fresh process of the server `name`, one case, one window."""
    exchange = frames.Exchange.of(
        size=options.size,
        opcode=frames.TEXT if options.text else frames.BINARY,
        unmasks=servers.ADAPTERS[name].unmasks,
    )
    with servers.running(name, core=cores.server) as server:
        window = load.measure(
            server.port,
            case,
            exchange,
            warm_up=WARM_UP,
            seconds=options.seconds,
            server_cpu=server.cpu_seconds,
        )
    return report.Measurement(
        server=name,
        case=str(case),
        repeat=repeat,
        rate=window.messages / window.seconds,
        cpu=window.server_cpu / window.messages * 1e6,
        p50=report.percentile(window.latencies, 0.50) * 1e6,
        p99=report.percentile(window.latencies, 0.99) * 1e6,
        server_load=window.server_cpu / window.seconds,
        load_load=window.load_cpu / window.seconds,
    )


def measure_all(cores: Cores, options: argparse.Namespace) -> list[report.Measurement]:
    """All servers side by side: in every repeat each case visits each, and another one begins."""
    measurements: list[report.Measurement] = []
    for repeat in range(options.repeats):
        first = repeat % len(options.servers)
        order = options.servers[first:] + options.servers[:first]
        for case in options.cases:
            for name in order:
                measured = measure_once(name, case, repeat, cores, options)
                measurements.append(measured)
                print(
                    f"repeat {repeat + 1}/{options.repeats} {case} {name}: "
                    f"{measured.rate:,.0f} messages/s, {measured.cpu:.1f} us",
                    file=sys.stderr,
                )
    return measurements


def describe(cores: Cores, options: argparse.Namespace) -> dict[str, Any]:
    """What somebody needs to know to repeat the run."""
    return {
        "message": f"{options.size} bytes, {'text' if options.text else 'binary'}",
        "repeats": f"{options.repeats}, interleaved; medians, smallest-largest in parentheses",
        "window": f"{options.seconds} s after {WARM_UP} s of warm-up, a fresh server process each",
        "cores": cores.note,
        "load average": " ".join(f"{value:.2f}" for value in os.getloadavg()),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, {platform.system()} "
        f"{platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "versions": ", ".join(
            f"{adapter.distribution} {adapter.version()}"
            for name, adapter in servers.ADAPTERS.items()
            if name in {"raw", "wsproto", *options.servers}
        ),
    }


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line; lists of names are separated by commas."""
    parser = argparse.ArgumentParser(description="Echo of small messages, server beside server.")
    add = parser.add_argument
    add("--servers", default=",".join(SERVERS), help="of " + ", ".join(servers.ADAPTERS))
    add("--cases", default=",".join(CASES), help="CONNECTIONSxIN_FLIGHT (%(default)s)")
    add("--repeats", type=int, default=5, help="how often (%(default)s)")
    add("--seconds", type=float, default=1.0, help="of each window (%(default)s)")
    add("--size", type=int, default=32, help="bytes of a message (%(default)s)")
    add("--text", action="store_true", help="text messages (binary)")
    add("--json", type=Path, metavar="FILE", help="also write every measurement there")
    options = parser.parse_args(arguments)
    options.servers = options.servers.split(",")
    if unknown := set(options.servers) - set(servers.ADAPTERS):
        parser.error(f"no such server: {', '.join(sorted(unknown))}")
    try:
        options.cases = [load.Case.parse(text) for text in options.cases.split(",")]
    except ValueError as exc:
        parser.error(str(exc))
    if options.repeats < 1 or not 0 < options.seconds <= MAX_SECONDS or options.size < 0:
        parser.error(f"at least 1 repeat, more than 0 and at most {MAX_SECONDS} seconds, a size")
    missing = [name for name in options.servers if servers.ADAPTERS[name].version() is None]
    if missing:
        parser.error(
            f"not installed: {', '.join(missing)}; install the dependency group `bench`, or leave "
            "them out with --servers"
        )
    return options


def main(arguments: list[str] | None = None) -> None:
    """Measure, print the tables on standard output (progress goes to standard error)."""
    options = parse(arguments)
    cores = choose_cores()
    about = describe(cores, options)
    for key, value in about.items():
        print(f"{key:>12}: {value}")
    if cores.load is not None:
        os.sched_setaffinity(0, {cores.load})
    libraries = [name for name, adapter in servers.ADAPTERS.items() if adapter.library]
    results = report.Results(measure_all(cores, options), libraries=libraries)
    print(f"\n{results.tables()}")
    if options.json:
        options.json.write_text(json.dumps(results.document(about), indent=2) + "\n")


if __name__ == "__main__":
    main()
