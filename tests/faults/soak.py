"""Half an hour of everything at once: connections open, echo, close, abort, and nothing piles up.

    python tests/faults/soak.py [--minutes 30] [--clients 100] [--pause 0.05] [--write]

Run by hand; `--write` puts the result into docs/soak.md. Lives here: what the clients do, and the
verdict: no complaint of the server's, memory that stays flat after the first quarter, tasks and
descriptors back to where they were. Must never live here: another server than `server.py`.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import socket
import statistics
import struct
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import trio
from faults_world import MIB, Watched, raise_descriptor_limit, server, wait_until

from trio_ws.testing import BINARY, CONTINUATION, TEXT, RawPeer, encode_frame, upgrade_head

PAGE = Path(__file__).parents[2] / "docs" / "soak.md"
RESET = struct.pack("ii", 1, 0)
GROWTH = 16 * MIB
"""What the last quarter's peak may be above the second's."""


@dataclass(kw_only=True)
class Tally:
    done: Counter[str] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    rss: list[int] = field(default_factory=list)


async def echoes(peer: RawPeer, tally: Tally, pause: float) -> None:
    """Some messages of all sizes, whole and in fragments; each must come back as it was."""
    for _ in range(random.randrange(1, 20)):
        size = random.choice([0, 1, 125, 126, 1000, 65536, 200_000])
        began = trio.current_time()
        if size and random.random() < 0.3:
            data = os.urandom(size)
            await peer.send_raw(encode_frame(BINARY, data[: size // 2], fin=False, masked=True))
            await peer.send_raw(encode_frame(CONTINUATION, data[size // 2 :], masked=True))
            assert await peer.receive_message() == data
        else:
            text = "é" * (size // 2)
            await peer.send_raw(encode_frame(TEXT, text.encode(), masked=True))
            assert await peer.receive_message() == text
        tally.latencies.append(trio.current_time() - began)
        tally.done["echoes"] += 1
        await trio.sleep(random.expovariate(1 / pause))


async def visit(watched: Watched, tally: Tally, pause: float) -> None:
    """One connection, from the beginning to one of many ends."""
    end = random.choice(ENDS)
    peer = RawPeer(await trio.open_tcp_stream("127.0.0.1", watched.port))
    assert isinstance(peer.stream, trio.SocketStream)
    async with peer:
        if end == "left during the handshake":
            await peer.send_raw(upgrade_head("/echo")[: random.randrange(1, 100)])
        else:
            await peer.request("/echo")
            await echoes(peer, tally, pause)
        if end == "closed by the peer":
            await peer.send_close(1000)
            await peer.expect_close(1000)
            await peer.expect_eof()
        elif end == "protocol errors":
            await peer.send_raw(encode_frame(3, masked=True))
            await peer.expect_close(1002)
        elif end == "left within a frame":
            await peer.send_raw(encode_frame(BINARY, bytes(5000), masked=True)[:3000])
        elif end == "reset":
            peer.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        elif end == "left unread":
            await peer.send_raw(encode_frame(BINARY, bytes(100_000), masked=True))
    tally.done[end] += 1


ENDS = (
    "closed by the peer",
    "left without a Close",
    "left within a frame",
    "left during the handshake",
    "left unread",
    "reset",
    "protocol errors",
)


async def torment(watched: Watched, tally: Tally, args: argparse.Namespace) -> None:
    async def client() -> None:
        while True:
            await visit(watched, tally, args.pause)

    with trio.move_on_after(60 * args.minutes):
        async with trio.open_nursery() as nursery:
            for _ in range(args.clients):
                nursery.start_soon(client)
            while True:
                await trio.sleep(1)
                tally.rss.append(watched.rss)
                if len(tally.rss) % 30 == 0:
                    print(f"{len(tally.rss)} s: {tally.rss[-1] / MIB:.1f} MiB", file=sys.stderr)


def report(args: argparse.Namespace, tally: Tally, ends: Counter[str], cpu: float) -> str:
    quarter = max(1, len(tally.rss) // 4)
    peaks = [max(tally.rss[at : at + quarter]) / MIB for at in range(0, 4 * quarter, quarter)]
    cuts = statistics.quantiles(tally.latencies, n=100)
    p50, p99, most = (1000 * each for each in (cuts[49], cuts[98], max(tally.latencies)))
    latency = f"p50 {p50:.1f} ms, p99 {p99:.1f} ms, max {most:.0f} ms"
    rows = [
        ("date", time.strftime("%Y-%m-%d", time.gmtime())),
        ("machine", f"{platform.machine()}, {os.cpu_count()} CPUs, {platform.system()}"),
        ("versions", f"Python {platform.python_version()}, trio {trio.__version__}"),
        ("load", f"{args.clients} clients, {args.minutes:g} minutes, mean pause {args.pause:g} s"),
        ("server's CPU", f"{100 * cpu / (60 * args.minutes):.0f} %"),
        ("messages echoed", f"{tally.done.pop('echoes'):,}"),
        ("connections", f"{tally.done.total():,}"),
        *((f"... {end}", f"{count:,}") for end, count in sorted(tally.done.items())),
        ("close codes the server saw", ", ".join(f"{k}: {v:,}" for k, v in sorted(ends.items()))),
        ("echo, 0 to 200 KB, as this busy client saw it", latency),
        ("peak RSS by quarter", ", ".join(f"{peak:.1f}" for peak in peaks) + " MiB"),
        ("tasks, descriptors left over", "none"),
        ("complaints in the server's log", "none"),
    ]
    return "".join(f"| {name} | {value} |\n" for name, value in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description="Open, echo, close, abort, for a long time.")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--pause", type=float, default=0.05, help="seconds between messages, mean")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    args = parser.parse_args()
    raise_descriptor_limit()
    tally = Tally()
    with server(ping_interval=5.0, ping_timeout=5.0) as watched:
        before, descriptors, cpu = watched.ask()["tasks"], watched.descriptors, watched.cpu
        trio.run(torment, watched, tally, args)
        cpu = watched.cpu - cpu
        wait_until(lambda: watched.ask()["connections"] == 0, within=30)
        wait_until(lambda: watched.descriptors <= descriptors, within=10)
        # The attendant and a flusher on its way out come on top.
        wait_until(lambda: watched.ask()["tasks"] <= before + 1, within=10)
        ends = Counter(watched.ask()["ends"])
    quarter = max(1, len(tally.rss) // 4)
    growth = max(tally.rss[-quarter:]) - max(tally.rss[quarter : 2 * quarter])
    table = report(args, tally, ends, cpu)
    print(table)
    assert growth < GROWTH, f"{growth / MIB:.1f} MiB more than in the second quarter"
    if args.write:
        PAGE.write_text(HEAD + table)


HEAD = """# The last long run

`python tests/faults/soak.py --write` wrote this: many clients at once open connections, exchange
messages, and leave in every way there is; see there for what it asserts.

| | |
|---|---|
"""

if __name__ == "__main__":
    main()
