"""One command: how fast does one message reach many, and what does each delivery cost?

    python benchmarks/broadcast.py       # all servers, 100 and 1,000 members, about three minutes

Lives here: the command line, the load (one publisher, members that only read), its table.
Must never live here: a WebSocket library (the servers are in `room_servers`), a verdict.

All connections are members; the first one publishes. It keeps a number of messages under way: the
next one leaves when one has reached *all* members. So a server that forgets the last members does
not win, and one that is asked for several messages at once may write them together. Every byte is
compared with the bytes that must come.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import select
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if __name__ == "__main__" and not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import echo, frames, load, report, room_servers, servers  # through the line above

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

CASES: Final = ("100x1", "1000x1", "100x16", "1000x16")
WARM_UP: Final = 0.3
MAX_SECONDS: Final = 10.0
"""Longer windows would meet the servers' keepalive pings, which the load does not understand."""
PATIENCE: Final = 10.0
"""Seconds without any byte after which a server counts as stuck."""
OURS: Final = "trio_ws"
READ_SIZE: Final = 1 << 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """One server in one case in one repeat.

    Attributes:
        rate: deliveries (one message to one member) per second.
        cpu: microseconds of the server's CPU time, user and system, per delivery.
        server_load, load_load: part of the window the process was on a CPU, 0 to 1.
    """

    server: str
    case: str
    repeat: int
    rate: float
    cpu: float
    server_load: float
    load_load: float


class Audience:
    """Connections that read what the first of them publishes."""

    def __init__(
        self, connections: list[socket.socket], exchange: frames.Exchange, in_flight: int
    ) -> None:
        self._publish = connections[0].send
        self._request = exchange.request
        self._size = len(exchange.reply)
        self._expected = exchange.reply * (READ_SIZE // self._size + 2)
        self._connections = {each.fileno(): each for each in connections}
        self._received = dict.fromkeys(self._connections, 0)
        self._in_flight = in_flight
        self._missing: dict[int, int] = {}
        self._next = 0
        self._epoll = select.epoll()
        for number in self._connections:
            self._epoll.register(number, select.EPOLLIN)

    def close(self) -> None:
        self._epoll.close()

    def gather(self) -> None:
        """Have the last who came say something, and everybody hear it: a server may answer 101 a
        little before it counts a member in, and what is published meanwhile passes him by."""
        *_, last = self._connections.values()
        self._send(1, last.send)
        self.drive(0, publish=False)

    def _send(self, count: int, publish: Callable[[bytes], int]) -> None:
        request = self._request * count
        if publish(request) != len(request):
            raise load.LoadError("the kernel did not take a step of the load whole")
        for _ in range(count):
            self._missing[self._next] = len(self._connections)
            self._next += 1

    def start(self) -> None:
        """Put the first messages under way."""
        self._send(self._in_flight, self._publish)

    def drive(self, seconds: float, *, publish: bool = True) -> int:
        """Read for `seconds`, or, not publishing, until nothing is under way; the deliveries.

        Raises:
            load.LoadError: not what was sent, or nothing at all for `PATIENCE` seconds.
        """
        clock, size, missing = time.perf_counter, self._size, self._missing
        received, connections, expected = self._received, self._connections, self._expected
        deliveries = 0
        end = clock() + seconds
        while missing and (not publish or clock() < end):
            ready = self._epoll.poll(PATIENCE)
            if not ready:
                raise load.LoadError(f"no byte within {PATIENCE} seconds")
            complete = 0
            for number, _ in ready:
                data = connections[number].recv(READ_SIZE)
                before = received[number]
                if not data or not expected.startswith(data, before % size):
                    raise load.LoadError(f"not what was published: {data[:80]!r}")
                after = received[number] = before + len(data)
                for index in range(before // size, after // size):
                    deliveries += 1
                    missing[index] -= 1
                    if not missing[index]:
                        del missing[index]
                        complete += 1
            if complete and publish:
                self._send(complete, self._publish)
        return deliveries


@contextmanager
def audience(port: int, case: load.Case, exchange: frames.Exchange) -> Iterator[Audience]:
    """Connect; at the end let all arrive, say Close, and wait for each to end (bounded)."""
    connections: list[socket.socket] = []
    try:
        connections.extend(load.open_connection(port) for _ in range(case.connections))
        members = Audience(connections, exchange, case.in_flight)
        try:
            members.gather()
            yield members
            members.drive(0, publish=False)
        finally:
            members.close()
        load.part(connections)
    finally:
        for connection in connections:
            connection.close()


def measure_once(
    name: str, case: load.Case, repeat: int, cores: echo.Cores, options: argparse.Namespace
) -> Measurement:
    """A fresh process of the server `name`, one case, one window."""
    exchange = frames.Exchange.of(size=options.size, opcode=frames.BINARY, unmasks=True)
    with servers.running(name, core=cores.server, module="benchmarks.room_servers") as server:
        with audience(server.port, case, exchange) as members:
            members.start()
            members.drive(WARM_UP)
            gc.collect()
            cpu, own, start = server.cpu_seconds(), time.process_time(), time.perf_counter()
            deliveries = members.drive(options.seconds)
            end, own_end, cpu_end = time.perf_counter(), time.process_time(), server.cpu_seconds()
    if not deliveries:
        raise load.LoadError(f"no delivery within {options.seconds} seconds")
    return Measurement(
        server=name,
        case=str(case),
        repeat=repeat,
        rate=deliveries / (end - start),
        cpu=(cpu_end - cpu) / deliveries * 1e6,
        server_load=(cpu_end - cpu) / (end - start),
        load_load=(own_end - own) / (end - start),
    )


def measure_all(cores: echo.Cores, options: argparse.Namespace) -> list[Measurement]:
    """All servers side by side: in every repeat each case visits each, and another one begins."""
    measurements: list[Measurement] = []
    for repeat in range(options.repeats):
        first = repeat % len(options.servers)
        for case in options.cases:
            for name in options.servers[first:] + options.servers[:first]:
                measured = measure_once(name, case, repeat, cores, options)
                measurements.append(measured)
                print(
                    f"repeat {repeat + 1}/{options.repeats} {case} {name}: "
                    f"{measured.rate:,.0f} deliveries/s, {measured.cpu:.1f} us",
                    file=sys.stderr,
                )
    return measurements


def table(measurements: list[Measurement], case: str) -> str:
    """One case: what was measured, and how `OURS` compares with each, paired by repeat."""
    runs = [m for m in measurements if m.case == case]
    rows = [
        "server|how|deliveries/s|CPU us/delivery|(min-max)|server CPU|load CPU"
        f"|deliveries/s: {OURS} / it|CPU: it / {OURS}".split("|")
    ]
    ours = {m.repeat: m for m in runs if m.server == OURS}
    for name, adapter in room_servers.ADAPTERS.items():
        mine = [m for m in runs if m.server == name]
        if not mine:
            continue
        cpu = report.Spread.of(m.cpu for m in mine)

        def middle(quantity: Callable[[Measurement], float], of: list[Measurement] = mine) -> float:
            return report.Spread.of(quantity(m) for m in of).median

        ratios = [""] * 2
        pairs = [(ours[m.repeat], m) for m in mine if m.repeat in ours]
        if name != OURS and pairs:
            ratios = [
                _ratio(report.Spread.of(a.rate / b.rate for a, b in pairs)),
                _ratio(report.Spread.of(b.cpu / a.cpu for a, b in pairs)),
            ]
        rows.append(
            [
                name,
                adapter.how,
                f"{middle(lambda m: m.rate):,.0f}",
                f"{cpu.median:.2f}",
                f"({cpu.low:.2f}-{cpu.high:.2f})",
                f"{middle(lambda m: m.server_load):.0%}",
                f"{middle(lambda m: m.load_load):.0%}",
                *ratios,
            ]
        )
    members, _, in_flight = case.partition("x")
    return f"## {members} members, {in_flight} message(s) under way\n\n{report.render(rows)}"


def _ratio(spread: report.Spread) -> str:
    return f"{spread.median:.2f} ({spread.low:.2f}-{spread.high:.2f})"


def describe(cores: echo.Cores, options: argparse.Namespace) -> dict[str, Any]:
    """What somebody needs to know to repeat the run."""
    names = dict.fromkeys(
        (room_servers.ADAPTERS[name].distribution, room_servers.ADAPTERS[name].version())
        for name in options.servers
    )
    return {
        "message": f"{options.size} bytes, binary",
        "repeats": f"{options.repeats}, interleaved; medians, smallest-largest in parentheses",
        "window": f"{options.seconds} s after {WARM_UP} s of warm-up, a fresh server process each",
        "cores": cores.note,
        "load average": " ".join(f"{value:.2f}" for value in os.getloadavg()),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, {platform.system()} "
        f"{platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}, asyncio's loop",
        "versions": ", ".join(f"{name} {version}" for name, version in names),
    }


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line; lists of names are separated by commas."""
    parser = argparse.ArgumentParser(description="One message to many, server beside server.")
    add = parser.add_argument
    known = room_servers.ADAPTERS
    add("--servers", default=",".join(known), help="of " + ", ".join(known))
    add("--cases", default=",".join(CASES), help="MEMBERSxIN_FLIGHT (%(default)s)")
    add("--repeats", type=int, default=5, help="how often (%(default)s)")
    add("--seconds", type=float, default=1.0, help="of each window (%(default)s)")
    add("--size", type=int, default=64, help="bytes of a message (%(default)s)")
    add("--json", type=Path, metavar="FILE", help="also write every measurement there")
    options = parser.parse_args(arguments)
    options.servers = options.servers.split(",")
    if unknown := set(options.servers) - set(known):
        parser.error(f"no such server: {', '.join(sorted(unknown))}")
    try:
        options.cases = [load.Case.parse(text) for text in options.cases.split(",")]
    except ValueError as exc:
        parser.error(str(exc))
    if options.repeats < 1 or not 0 < options.seconds <= MAX_SECONDS or options.size < 0:
        parser.error(f"at least 1 repeat, more than 0 and at most {MAX_SECONDS} seconds, a size")
    missing = [name for name in options.servers if known[name].version() is None]
    if missing:
        parser.error(
            f"not installed: {', '.join(missing)}; install the dependency group `bench`, or leave "
            "them out with --servers"
        )
    return options


def main(arguments: list[str] | None = None) -> None:
    """Measure, print the tables on standard output (progress goes to standard error)."""
    options = parse(arguments)
    cores = echo.choose_cores()
    about = describe(cores, options)
    for key, value in about.items():
        print(f"{key:>12}: {value}")
    if cores.load is not None:
        os.sched_setaffinity(0, {cores.load})
    measurements = measure_all(cores, options)
    for case in dict.fromkeys(m.case for m in measurements):
        print(f"\n{table(measurements, case)}")
    if options.json:
        document = {"about": about, "measurements": [asdict(m) for m in measurements]}
        options.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
