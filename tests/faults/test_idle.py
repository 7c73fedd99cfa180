"""5,000 idle connections: what each costs, and that nothing is left when they have gone."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Iterator

import pytest
from faults_world import Watched, raise_descriptor_limit, read_head, server, wait_until

from trio_ws.testing import CLOSE, encode_frame, upgrade_head

COUNT = 5000
BATCH = 100
PLAIN, OTHER = 12 * 1024, 20 * 1024
RESET = struct.pack("ii", 1, 0)  # linger for no time: close(2) sends RST


@contextlib.contextmanager
def crowd(watched: Watched, count: int, *, politely: bool) -> Iterator[None]:
    """Hold `count` open connections; end them with closing handshakes or with resets."""
    with contextlib.ExitStack() as stack:
        peers: list[socket.socket] = []
        while len(peers) < count:
            batch = [
                stack.enter_context(socket.create_connection(("127.0.0.1", watched.port)))
                for _ in range(min(BATCH, count - len(peers)))
            ]
            for peer in batch:
                peer.settimeout(20)
                peer.sendall(upgrade_head("/idle"))
            for peer in batch:
                read_head(peer)
            peers += batch
        yield
        for peer in peers:
            if politely:
                peer.sendall(encode_frame(CLOSE, b"\x03\xe8", masked=True))
            else:
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        if politely:
            for peer in peers:
                assert peer.recv(100) == encode_frame(CLOSE, b"\x03\xe8")
                assert peer.recv(100) == b""


def settle(watched: Watched, count: int) -> None:
    wait_until(lambda: watched.ask()["connections"] == count, within=20)
    time.sleep(1.5)  # one look of the attendant's at every connection


@pytest.mark.row("E13")
@pytest.mark.parametrize(
    ("options", "bound", "politely"),
    [
        pytest.param([], PLAIN, True, id="plain sockets, closed"),
        pytest.param(["--wrapped"], OTHER, False, id="other streams, reset"),
    ],
)
def test_idle_connections_cost_little_and_leave_nothing(
    options: list[str], bound: int, politely: bool
) -> None:
    """At most 12 KiB of RSS each on plain sockets, 20 on other streams, without compression;
    afterwards tasks and descriptors are what they were before."""
    assert raise_descriptor_limit() > COUNT + 100, "ulimit -n"
    with server(*options) as watched:
        with crowd(watched, 20, politely=politely):  # what is made once is no connection's
            pass
        settle(watched, 0)
        tasks, descriptors, empty = watched.ask()["tasks"], watched.descriptors, watched.rss
        began = time.monotonic()
        with crowd(watched, COUNT, politely=politely):
            opened = time.monotonic() - began
            settle(watched, COUNT)
            each = (watched.rss - empty) / COUNT
            cpu = watched.cpu
            time.sleep(3)
            busy = 100 * (watched.cpu - cpu) / 3
        settle(watched, 0)
        left = (watched.rss - empty) / COUNT
        print(
            f"\n{COUNT} idle: {each:,.0f} bytes of RSS each (bound {bound:,}); opened in"
            f" {opened:.1f} s; idle at {busy:.1f} % CPU; {left:,.0f} bytes each not given back"
        )
        assert watched.ask()["tasks"] == tasks
        assert watched.descriptors == descriptors
        assert each <= bound
