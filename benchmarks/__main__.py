"""One command: how fast are WebSocket servers for Python, and what do they cost?

    python -m benchmarks            # all suites, all servers, about 15 minutes
    python -m benchmarks --quick    # a look at everything, about 2 minutes

Lives here: the command line and the order of the runs. Must never live here: what is measured
(`suites`), of whom (`servers`), what is made of it (`report`).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks import machine, report, servers, suites
from benchmarks.connections import LoadError, Unmeasurable

if TYPE_CHECKING:
    from collections.abc import Iterator

DEFAULT: Final = tuple(name for name in servers.ADAPTERS if name != "wsproto")
QUICK: Final = {"repeats": 1, "seconds": 0.3}
MAX_SECONDS: Final = 10.0
"""Longer windows would meet the servers' keepalive pings, which the load does not understand."""

VOID: Final = (LoadError, OSError, servers.ServerFailed, Unmeasurable)
"""What may end a measurement; the last one only that, the others all of that server and case."""

SUMMARY: Final = (
    ("echo", "100x1", "messages/s"),
    ("echo", "100x1", "CPU us/message"),
    ("echo", "16x16", "messages/s"),
    ("echo", "16x16", "CPU us/message"),
    ("echo", "1x1", "p50 us"),
    ("echo", "16 KiB 16x4", "messages/s"),
    ("echo", "16 KiB 16x4", "CPU us/message"),
    ("echo", "1 MiB 1x4", "messages/s"),
    ("echo", "1 MiB 1x4", "CPU us/message"),
    ("broadcast", "1000x1", "deliveries/s"),
    ("broadcast", "1000x1", "CPU us/delivery"),
    ("broadcast", "1000x16", "deliveries/s"),
    ("broadcast", "1000x16", "CPU us/delivery"),
    ("handshakes", "1 at a time", "handshakes/s"),
    ("handshakes", "16 at a time", "handshakes/s"),
    ("handshakes", "16 at a time", "CPU us/handshake"),
    ("idle", "1000", "bytes/connection"),
)
"""The lines of the last table."""


def _steps(options: argparse.Namespace) -> Iterator[tuple[int, str, str, str]]:
    """Every repeat, suite, case and server: side by side, and in each repeat another begins."""
    for repeat in range(options.repeats):
        for suite in options.suites:
            kind = suites.SUITES[suite]
            if repeat >= kind.repeats and not options.all_repeats:
                continue
            names = [name for name in options.servers if kind.takes(name)]
            first = repeat % max(1, len(names))
            for case in options.cases or kind.cases:
                for name in names[first:] + names[:first]:
                    yield repeat, suite, case, name


def measure_all(
    core: int | None, options: argparse.Namespace
) -> tuple[list[report.Measurement], dict[str, str]]:
    """All measurements, and why some there should be are not.

    A server that does something wrong once is out of that case, with all its repeats: what it did
    right before is no answer to the question how fast it is right.
    """
    measurements: list[report.Measurement] = []
    missing: dict[str, str] = {}
    void: set[tuple[str, str, str]] = set()
    for repeat, suite, case, name in _steps(options):
        key = (suite, case, name)
        said = f"repeat {repeat + 1}/{options.repeats} {' '.join(key)}: "
        if key in void:
            continue
        try:
            if why := suites.SUITES[suite].needs(case):
                raise Unmeasurable(why)
            values = suites.measure_once(suite, case, name, seconds=options.seconds, core=core)
        except VOID as exc:
            if not isinstance(exc, Unmeasurable):
                void.add(key)
            missing[" ".join(key)] = f"{type(exc).__name__}: {exc}"
            print(f"{said}MISSING, {exc!r}", *getattr(exc, "__notes__", []), file=sys.stderr)
            continue
        print(said + _progress(values), file=sys.stderr)
        measurements.append(
            report.Measurement(suite=suite, case=case, server=name, repeat=repeat, values=values)
        )
    return [m for m in measurements if (m.suite, m.case, m.server) not in void], missing


def _progress(values: dict[str, float]) -> str:
    return ", ".join(f"{value:,.1f} {name}" for name, value in list(values.items())[:3])


def tables(results: report.Results, options: argparse.Namespace) -> Iterator[str]:
    """The Markdown of the run, part by part."""
    for suite in options.suites:
        kind = suites.SUITES[suite]
        for case in options.cases or kind.cases:
            text = results.table(suite, case, kind.quantities)
            if text:
                yield f"## {kind.title.format(case)}\n\n{text}"
    peers = [name for name in options.servers if name != report.OURS]
    lines = [line for line in SUMMARY if line[0] in options.suites]
    if text := results.summary(lines, peers):
        yield f"## How many times better {report.OURS} is (smaller than 1: worse)\n\n{text}"


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line; lists of names are separated by commas."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="WebSocket servers side by side."
    )
    add = parser.add_argument
    add("--suites", default=",".join(suites.SUITES), help="of %(default)s")
    add("--servers", default=",".join(DEFAULT), help="of " + ", ".join(servers.ADAPTERS))
    add("--cases", help="other cases of one suite, such as 10x1,4x64 for echo")
    add("--repeats", type=int, help="how often (5; idle and scale 3)")
    add("--seconds", type=float, help="of each window (0.6)")
    add("--quick", action="store_true", help="one repeat of 0.3 seconds: a look, no result")
    add("--json", type=Path, metavar="FILE", help="also write every measurement there")
    add("--plots", type=Path, metavar="DIR", help="also draw them there (needs matplotlib)")
    options = parser.parse_args(arguments)
    _complete(parser, options)
    return options


def _complete(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Fill in what was not said; refuse what cannot be."""
    options.all_repeats = options.repeats is not None
    options.repeats = options.repeats or (QUICK["repeats"] if options.quick else 5)
    if options.seconds is None:
        options.seconds = QUICK["seconds"] if options.quick else 0.6
    options.suites, options.servers = options.suites.split(","), options.servers.split(",")
    options.cases = options.cases.split(",") if options.cases else []
    if unknown := set(options.suites) - set(suites.SUITES):
        parser.error(f"no such suite: {', '.join(sorted(unknown))}")
    if unknown := set(options.servers) - set(servers.ADAPTERS):
        parser.error(f"no such server: {', '.join(sorted(unknown))}")
    if options.cases and len(options.suites) != 1:
        parser.error("--cases needs one suite to belong to")
    try:
        for case in options.cases:
            suites.SUITES[options.suites[0]].check(case)
    except ValueError as exc:
        parser.error(str(exc))
    if options.repeats < 1 or not 0 < options.seconds <= MAX_SECONDS:
        parser.error(f"at least 1 repeat, more than 0 and at most {MAX_SECONDS} seconds")
    if missing := [name for name in options.servers if servers.ADAPTERS[name].version() is None]:
        parser.error(
            f"not installed: {', '.join(missing)}; install the dependency group `bench`, or leave "
            "them out with --servers"
        )


def main(arguments: list[str] | None = None) -> int:
    """Measure, print the tables on standard output (progress goes to standard error).

    Returns:
        1 if a measurement is missing, otherwise 0.
    """
    options = parse(arguments)
    cores = machine.choose_cores()
    about = machine.describe(cores, options.servers)
    about["method"] = (
        f"{options.repeats} repeats, interleaved, medians (smallest-largest); windows of "
        f"{options.seconds} s, a fresh server process each"
    )
    about["date"] = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    if cores.load is not None:
        os.sched_setaffinity(0, {cores.load})
    began = time.monotonic()
    measurements, missing = measure_all(cores.server, options)
    about["duration"] = f"{(time.monotonic() - began) / 60:.1f} minutes"
    about |= {f"missing: {what}": why for what, why in missing.items()}
    results = report.Results(
        measurements, libraries=[n for n, each in servers.ADAPTERS.items() if each.library]
    )
    print("\n".join(f"- {key}: {value}" for key, value in about.items()))
    for text in tables(results, options):
        print(f"\n{text}")
    _write({"about": about, "measurements": [asdict(m) for m in measurements]}, options)
    return 1 if missing else 0


def _write(document: dict[str, Any], options: argparse.Namespace) -> None:
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    if options.plots:
        from benchmarks import plots  # noqa: PLC0415 -- who wants no picture needs no matplotlib

        plots.write(document, options.plots)


if __name__ == "__main__":
    sys.exit(main())
