"""``trio-ws bench``: how fast an echo server answers, as a client of ours sees it.

Lives here: the load, what it counted, and how that is told. Must never live here: a comparison of
servers (benchmarks/ has a load that costs less, and keeps processes apart), drawing (`histogram`).

Each connection keeps `in_flight` messages under way: for each that comes back, the next leaves.
Everything is bounded in time: opening by the handshake's timeout, the rest by ``--seconds``.
"""

from __future__ import annotations

import json
import math
import sys
import time
from array import array
from collections import deque
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import trio

from trio_ws import ConnectionClosed, HandshakeError, Limits, WebSocket
from trio_ws import connect as open_websocket

from .histogram import histogram_svg
from .options import (
    CommandFailed,
    UsageError,
    add_client_options,
    add_json_option,
    client_keywords,
    count,
    seconds,
)
from .running import run_until_signal
from .words import OK, duration, redacted_target_untrusted, shown_untrusted

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from trio_ws._client_options import ClientKeywords

MAX_SECONDS: Final = 600.0
OPENING_AT_ONCE: Final = 32
"""Handshakes at a time: a thousand at once would measure the backlog of the listener."""
PERCENTILES: Final = (50.0, 90.0, 99.0, 99.9)
BUSY: Final = 0.9
"""From this part of a core on, this client may be what limits the rate."""
BAR: Final = 30


def add_command(commands: Any) -> None:
    """Add this command to the parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "bench",
        help="how fast an echo server answers",
        description="Send messages to a server that echoes, and measure rate and round trips. One"
        " Python process is the load: where it says that it was busy, the server may be faster.",
    )
    parser.add_argument("url", metavar="URL", help="of an echo, ws:// or wss://")
    load = parser.add_argument_group("load")
    load.add_argument("--connections", type=count, default=10, metavar="N", help="(default: 10)")
    load.add_argument(
        "--in-flight", type=count, default=1, metavar="N", help="on each connection (default: 1)"
    )
    load.add_argument(
        "--size", type=count, default=32, metavar="BYTES", help="of a message (default: 32)"
    )
    load.add_argument("--text", action="store_true", help="text messages instead of binary ones")
    load.add_argument(
        "--seconds", type=seconds, default=5.0, metavar="S", help="to measure (default: 5)"
    )
    load.add_argument(
        "--warm-up", type=seconds, default=0.5, metavar="S", help="before that (default: 0.5)"
    )
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw a histogram of round trips")
    add_json_option(parser, "one JSON object")
    add_client_options(parser)
    parser.set_defaults(run=run)


@dataclass(kw_only=True)
class Measurement:
    """What was counted.

    Attributes:
        latencies: seconds from the call that sent a message to the return of its echo.
        elapsed: seconds that were measured; `cpu`: those that this process was on a CPU in them.
    """

    latencies: array[float] = field(default_factory=lambda: array("d"))
    measuring: bool = False
    elapsed: float = 0.0
    cpu: float = 0.0


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    if not (0 < args.seconds <= MAX_SECONDS and args.warm_up <= MAX_SECONDS):
        raise UsageError(f"--seconds and --warm-up: up to {MAX_SECONDS:g}, and some to measure")
    keywords = client_keywords(args)
    least = Limits().max_message
    keywords["limits"] = Limits(handshake_timeout=args.timeout, max_message=max(least, args.size))
    return run_until_signal(partial(_bench, args, keywords))


async def _bench(args: argparse.Namespace, keywords: ClientKeywords) -> int:
    load = Load(args, keywords)
    try:
        async with trio.open_nursery() as nursery:
            for _ in range(args.connections):
                nursery.start_soon(load.one_connection)
            await load.all_open.wait()
            if sys.stderr.isatty():
                nursery.start_soon(load.show_progress)
            await load.measure()
    except* (HandshakeError, CommandFailed) as group:
        raise _first(group) from None
    measured = load.measured
    if not measured.latencies:
        raise CommandFailed(f"no echo within {args.seconds:g} s")
    _report(args, measured)
    return OK


def _first(exc: BaseException) -> BaseException:
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    return exc


class Load:
    """Connections, each with messages under way."""

    def __init__(self, args: argparse.Namespace, keywords: ClientKeywords) -> None:
        self.measured = Measurement()
        self.all_open = trio.Event()
        self._args = args
        self._keywords = keywords
        self._payload: str | bytes = "x" * args.size if args.text else b"x" * args.size
        self._open = 0
        self._opening = trio.Semaphore(OPENING_AT_ONCE)
        self._loops: list[trio.CancelScope] = []
        self._started = 0.0

    async def one_connection(self) -> None:
        """Open, keep messages going round until it is over, close.

        Raises:
            CommandFailed: the connection ended, or what came back is not what was sent.
        """
        await self._opening.acquire()
        async with open_websocket(self._args.url, **self._keywords) as ws:
            self._opening.release()
            self._open += 1
            if self._open == self._args.connections:
                self.all_open.set()
            await self.all_open.wait()
            with trio.CancelScope() as scope:
                self._loops.append(scope)
                try:
                    await self._go_round(ws)
                except ConnectionClosed as exc:
                    why = shown_untrusted(str(exc))
                    raise CommandFailed(f"a connection ended: {why}") from exc
            await ws.close()  # drops what is still under way

    async def _go_round(self, ws: WebSocket) -> None:
        clock, measured, payload = time.perf_counter, self.measured, self._payload
        sent: deque[float] = deque()
        for _ in range(self._args.in_flight):
            sent.append(clock())
            await ws.send(payload)
        while True:
            reply = await ws.receive()
            now = clock()
            if reply != payload:
                raise CommandFailed("the server does not echo: something else came back")
            round_trip = now - sent.popleft()
            if measured.measuring:
                measured.latencies.append(round_trip)
            sent.append(clock())
            await ws.send(payload)

    async def measure(self) -> None:
        """Let the load run, count in the window behind the warm-up, stop it."""
        measured, args = self.measured, self._args
        self._started = trio.current_time()
        await trio.sleep(args.warm_up)
        start, cpu = time.perf_counter(), time.process_time()
        measured.measuring = True
        await trio.sleep(args.seconds)
        measured.measuring = False
        measured.elapsed = time.perf_counter() - start
        measured.cpu = time.process_time() - cpu
        for scope in self._loops:
            scope.cancel()

    async def show_progress(self) -> None:
        """A bar on stderr, drawn ten times a second, gone at the end."""
        total = self._args.warm_up + self._args.seconds
        with trio.CancelScope() as scope:
            self._loops.append(scope)
            try:
                while True:
                    part = min(1.0, (trio.current_time() - self._started) / total)
                    sys.stderr.write(progress_line(part, len(self.measured.latencies)))
                    sys.stderr.flush()
                    await trio.sleep(0.1)
            finally:
                sys.stderr.write("\r\x1b[K")
                sys.stderr.flush()


def progress_line(part: float, messages: int) -> str:
    """The bar, drawn over what stood there."""
    done = round(part * BAR)
    return f"\r\x1b[K[{'#' * done}{'.' * (BAR - done)}] {part:4.0%}  {messages:,} messages"


# -- telling -------------------------------------------------------------------------------------


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The smallest value that at least so many percent do not exceed; `ordered` is not empty."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def _report(args: argparse.Namespace, measured: Measurement) -> None:
    ordered = sorted(measured.latencies)
    rate, busy = len(ordered) / measured.elapsed, measured.cpu / measured.elapsed
    points = {f"p{percent:g}": percentile(ordered, percent) for percent in PERCENTILES}
    points["max"] = ordered[-1]
    if args.svg is not None:
        _draw(args, ordered, points, rate)
    if args.json:
        document = {
            "url": args.url,
            "connections": args.connections,
            "in_flight": args.in_flight,
            "size": args.size,
            "seconds": measured.elapsed,
            "messages": len(ordered),
            "messages_per_second": rate,
            "round_trip_seconds": {"mean": sum(ordered) / len(ordered), **points},
            "client_cpu": busy,
        }
        print(json.dumps(document))
        return
    print(_load_in_words(args))
    print(f"messages/s  {rate:,.0f}   ({len(ordered):,} in {measured.elapsed:.1f} s)")
    print("round trip  " + "   ".join(f"{name} {duration(at)}" for name, at in points.items()))
    if busy > BUSY:
        print(f"this client was busy for {busy:.0%} of a core: the server may be faster than this")


def _load_in_words(args: argparse.Namespace) -> str:
    many = "s" if args.connections > 1 else ""
    return f"{args.connections} connection{many} x {args.in_flight} in flight x {args.size} bytes"


def _draw(
    args: argparse.Namespace, ordered: Sequence[float], points: dict[str, float], rate: float
) -> None:
    svg = histogram_svg(
        ordered,
        title=f"Round trips of {redacted_target_untrusted(args.url.encode())}",
        subtitle=f"{_load_in_words(args)}, {rate:,.0f} messages/s",
        marks={name: points[name] for name in ("p50", "p99", "max")},
    )
    try:
        args.svg.write_text(svg, encoding="utf-8")
    except OSError as exc:
        raise CommandFailed(f"cannot write {args.svg}: {exc.strerror}") from exc
