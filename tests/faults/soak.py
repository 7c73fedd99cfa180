"""Half an hour of everything at once: connections open, echo, close, abort, and nothing piles up.

    python tests/faults/soak.py [--minutes 30] [--clients 100] [--pause 0.05] [--write]

Run by hand; `--write` puts the result into docs/soak.md. Half of the clients compress what they say
and are answered likewise (RFC 7692), in several ways. Lives here: what the clients do, and the
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
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import trio
from faults_world import MIB, Watched, raise_descriptor_limit, server, wait_until

from trio_ws.testing import (
    BINARY,
    CLOSE,
    CONTINUATION,
    TEXT,
    Frame,
    RawPeer,
    encode_frame,
    upgrade_head,
)

PAGE = Path(__file__).parents[2] / "docs" / "soak.md"
RESET = struct.pack("ii", 1, 0)
GROWTH = 16 * MIB
"""What the last quarter's peak may be above the second's."""


RSV1 = 4
TAIL = b"\x00\x00\xff\xff"
WORDS = (
    b"compression thrives where people say the same things again and again, and so do we; ".split()
)

_squeeze = zlib.compressobj(9, zlib.DEFLATED, -9)
BOMB = _squeeze.compress(bytes(20 * MIB)) + _squeeze.flush(zlib.Z_SYNC_FLUSH)
"""Twenty times what a message may have."""


@dataclass(frozen=True, kw_only=True)
class Offer:
    """How a client compresses, and what it asks of the server."""

    text: bytes
    bits: int = 15
    alone: bool = False
    """Each message by itself, both ways."""


OFFERS = (
    Offer(text=b"permessage-deflate"),
    Offer(text=b"permessage-deflate; client_max_window_bits", bits=12),
    Offer(text=b"permessage-deflate; server_max_window_bits=9; client_max_window_bits=9", bits=9),
    Offer(
        text=b"permessage-deflate; server_no_context_takeover; client_no_context_takeover",
        alone=True,
    ),
)


@dataclass(kw_only=True)
class Tally:
    done: Counter[str] = field(default_factory=Counter)
    compressing: int = 0
    latencies: list[float] = field(default_factory=list)
    rss: list[int] = field(default_factory=list)


class Talker:
    """A client's messages, compressed if there is an `offer`, whole or in two frames."""

    def __init__(self, peer: RawPeer, offer: Offer | None) -> None:
        self._peer = peer
        self._offer = offer
        self._renew()

    def _renew(self) -> None:
        bits = 15 if self._offer is None else self._offer.bits
        self._compressor = zlib.compressobj(1, zlib.DEFLATED, -bits, 4)
        self._inflater = zlib.decompressobj(-15)

    async def say(self, opcode: int, data: bytes) -> None:
        rsv = 0
        if self._offer is not None:
            if self._offer.alone:
                self._renew()
            data = self._compressor.compress(data) + self._compressor.flush(zlib.Z_SYNC_FLUSH)
            data, rsv = data.removesuffix(TAIL), RSV1
        if data and random.random() < 0.3:
            half = len(data) // 2
            first = encode_frame(opcode, data[:half], fin=False, rsv=rsv, masked=True)
            await self._peer.send_raw(first)
            await self._peer.send_raw(encode_frame(CONTINUATION, data[half:], masked=True))
        else:
            await self._peer.send_raw(encode_frame(opcode, data, rsv=rsv, masked=True))

    async def hear(self) -> tuple[int, bytes]:
        frame = await self._data_frame()
        data = frame.payload
        if frame.rsv:
            assert self._offer is not None
            data = self._inflater.decompress(data + TAIL)
        return frame.opcode, data

    async def _data_frame(self) -> Frame:
        while True:
            frame = await self._peer.receive_frame()
            if not frame.is_control:
                assert frame.fin, "a server that echoes whole messages sends whole messages"
                return frame
            assert frame.opcode != CLOSE, frame


def message() -> tuple[int, bytes]:
    """Of any size; some of it can be compressed well, some cannot."""
    size = random.choice([0, 1, 125, 126, 1000, 65536, 200_000])
    kind = random.choice(["noise", "letters", "words"])
    if kind == "noise":
        return BINARY, os.urandom(size)
    if kind == "letters":
        return TEXT, "é".encode() * (size // 2)
    return TEXT, b" ".join(random.choices(WORDS, k=size // 6))


async def echoes(talker: Talker, tally: Tally, pause: float) -> None:
    """Some messages; each must come back as it was."""
    for _ in range(random.randrange(1, 20)):
        said = message()
        began = trio.current_time()
        await talker.say(*said)
        assert await talker.hear() == said
        tally.latencies.append(trio.current_time() - began)
        tally.done["echoes"] += 1
        await trio.sleep(random.expovariate(1 / pause))


async def visit(watched: Watched, tally: Tally, pause: float) -> None:
    """One connection, from the beginning to one of many ends."""
    end = random.choice(ENDS)
    offer = random.choice(OFFERS) if random.random() < 0.5 else None
    peer = RawPeer(
        await trio.open_tcp_stream("127.0.0.1", watched.port), allow_rsv=RSV1 if offer else 0
    )
    assert isinstance(peer.stream, trio.SocketStream)
    async with peer:
        if end == "left during the handshake":
            await peer.send_raw(upgrade_head("/echo")[: random.randrange(1, 100)])
        else:
            headers = [(b"Sec-WebSocket-Extensions", offer.text)] if offer else []
            agreed = b"permessage-deflate" in await peer.request("/echo", headers=headers)
            assert agreed == (offer is not None)
            tally.compressing += agreed
            await echoes(Talker(peer, offer), tally, pause)
        if end == "closed by the peer":
            await peer.send_close(1000)
            await peer.expect_close(1000)
            await peer.expect_eof()
        elif end == "protocol errors":
            await peer.send_raw(encode_frame(3, masked=True))
            await peer.expect_close(1002)
        elif end == "compressed nonsense":
            await peer.send_raw(encode_frame(BINARY, b"\xff" * 50, rsv=RSV1, masked=True))
            await peer.expect_close(1007 if offer else 1002)
        elif end == "bombs":
            await peer.send_raw(encode_frame(BINARY, BOMB, rsv=RSV1, masked=True))
            await peer.expect_close(1009 if offer else 1002)
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
    "compressed nonsense",
    "bombs",
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
        ("... past the handshake, compressing both ways", f"{tally.compressing:,}"),
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
    with server("--deflate", ping_interval=5.0, ping_timeout=5.0) as watched:
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
