"""What the fault tests share: the server's process watched from outside, and sockets to it.

Lives here: starting, reading /proc, plain blocking clients. Must never live here: trio, whose
scheduling would be part of every latency, or a fault.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trio_ws.testing import TEXT, encode_frame, upgrade_head

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).parent
PAGE = resource.getpagesize()
MIB = 1024 * 1024


def raise_descriptor_limit() -> int:
    """As many descriptors as we may have; how many that are."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


def wait_until(true: Callable[[], bool], *, within: float) -> None:
    """Look until it is so. AssertionError if it takes longer than `within` seconds."""
    deadline = time.monotonic() + within
    while not true():
        assert time.monotonic() < deadline, f"not so within {within} s"
        time.sleep(0.02)


@dataclass(kw_only=True)
class Watched:
    """The server's process."""

    process: subprocess.Popen[bytes]
    port: int
    errors: str = ""

    @property
    def rss(self) -> int:
        """Bytes of memory it has in use."""
        resident = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(resident) * PAGE

    @property
    def descriptors(self) -> int:
        return sum(1 for _ in Path(f"/proc/{self.process.pid}/fd").iterdir())

    @property
    def cpu(self) -> float:
        """Seconds of processor time it has used."""
        stat = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")

    def ask(self) -> dict[str, Any]:
        """What only it can know: tasks, connections, ends by code."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def dial(self, path: str, **more: Any) -> socket.socket:
        """A connection past its opening handshake."""
        peer = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer.sendall(upgrade_head(path, **more))
        read_head(peer)
        return peer


def read_head(peer: socket.socket) -> bytes:
    """Read a 101, up to its end and not further."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        more = peer.recv(1)
        assert more, f"the stream ended within {head!r}"
        head += more
    assert head.startswith(b"HTTP/1.1 101 "), head
    return head


@contextlib.contextmanager
def server(*options: str, **limits: Any) -> Iterator[Watched]:
    """The server's process; it must end with 0 and must not have said that it has a bug."""
    command = [sys.executable, "-u", str(HERE / "server.py"), json.dumps(limits), *options]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert line, "the server did not start; its stderr says why"
            watched = Watched(process=process, port=int(line))
            yield watched
            process.stdin.close()
            assert process.wait(30) == 0
        finally:
            process.kill()
            process.wait()
            process.stdin.close()
            process.stdout.close()
            errors.seek(0)
            words = errors.read().decode(errors="replace")
            sys.stderr.write(words[-4000:])
        watched.errors = words
        assert "Traceback" not in words
        assert "bug in trio_ws" not in words


@contextlib.contextmanager
def flood(kind: str, watched: Watched) -> Iterator[subprocess.Popen[bytes]]:
    """A process that does harm until the block is left."""
    command = [sys.executable, str(HERE / "flood.py"), kind, str(watched.port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"flooding\n"
        yield process
        assert process.poll() is None, "the flood ended by itself"
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@dataclass(kw_only=True)
class Watch:
    """What was seen of a server over some time.

    Attributes:
        latencies: seconds each echo on another connection took.
        rss: bytes, from time to time.
    """

    latencies: list[float] = field(default_factory=list)
    rss: list[int] = field(default_factory=list)
    cpu: float = 0.0
    seconds: float = 0.0

    @property
    def growth(self) -> int:
        """By how many bytes the second half's peak was above the first half's."""
        half = len(self.rss) // 2
        return max(self.rss[half:]) - max(self.rss[:half])

    def __str__(self) -> str:
        cuts = statistics.quantiles(self.latencies, n=100)
        p50, p99, most = (1000 * each for each in (cuts[49], cuts[98], max(self.latencies)))
        return (
            f"echo p50 {p50:.2f} ms, p99 {p99:.2f} ms, max {most:.1f} ms ({len(self.latencies)}"
            f" echoes in {self.seconds:.0f} s); RSS {self.rss[0] / MIB:.1f} MiB at first,"
            f" {max(self.rss) / MIB:.1f} at most, growth of the second half"
            f" {self.growth / MIB:+.2f}; server at {100 * self.cpu / self.seconds:.0f} % CPU"
        )


def watch(watched: Watched, seconds: float) -> Watch:
    """Echo on a connection of our own, one message at a time, and look at the memory."""
    frame, answer = encode_frame(TEXT, b"still there?", masked=True), 14
    seen = Watch()
    with watched.dial("/echo") as peer:
        cpu, began = watched.cpu, time.monotonic()
        while (now := time.monotonic()) < began + seconds:
            peer.sendall(frame)
            left = answer
            while left:
                got = len(peer.recv(left))
                assert got, "the server hung up on an innocent connection"
                left -= got
            seen.latencies.append(time.monotonic() - now)
            seen.rss.append(watched.rss)
            time.sleep(0.005)
        seen.cpu, seen.seconds = watched.cpu - cpu, time.monotonic() - began
    return seen
