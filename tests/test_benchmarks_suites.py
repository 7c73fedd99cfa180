"""Rooms, handshakes, memory, thousands of connections: what is counted is what happened.

Lives here: all suites but `echo` (test_benchmarks), the servers' processes. Must never live here:
how fast anything was.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from typing import Any

import pytest

from .benchmarks_world import MESSAGE, answering, exchange_of, linux, modules, serving

pytestmark = linux


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The modules of `benchmarks/`."""
    return modules(monkeypatch)


def test_broadcast_counts_what_every_member_has(bench: Any) -> None:
    """Real rooms, of both loops."""
    for name in ("trio_ws", "websockets-asyncio"):
        values = bench.suites.measure_once("broadcast", "5x3", name, seconds=0.2, core=None)
        assert list(values) == ["deliveries/s", "CPU us/delivery", *MESSAGE[2:]]
        assert all(value > 0 for value in values.values())


@pytest.mark.parametrize(
    ("reply", "word"), [(b"?" * 34, "not what was"), (None, "more deliveries than")]
)
def test_a_room_that_alters_or_doubles_a_message_voids_the_measurement(
    bench: Any, reply: bytes | None, word: str
) -> None:
    """The first byte that must not come ends the run."""
    reply = reply or exchange_of(bench).reply * 2
    with (
        serving(answering(reply), bench.frames.UPGRADED) as server,
        bench.connections.holding() as connections,
        pytest.raises(bench.connections.LoadError, match=word),
    ):
        bench.broadcast.measure(server, connections, "1x1", 0.1)


@pytest.mark.parametrize("case", ["1 at a time", "16 at a time"])
def test_handshakes_are_counted_when_their_101_is_whole(bench: Any, case: str) -> None:
    """A server of this library, and every quantity is there."""
    values = bench.suites.measure_once("handshakes", case, "trio_ws", seconds=0.1, core=None)
    assert list(values) == ["handshakes/s", "CPU us/handshake", *MESSAGE[2:]]
    assert all(value > 0 for value in values.values())


def test_no_more_handshakes_are_under_way_than_asked_for(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of four connections, three at a time, to one who answers none, three are begun."""
    monkeypatch.setattr(bench.connections, "PATIENCE", 0.05)
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        bench.connections.holding() as connections,
    ):
        bench.connections.open_connections(
            listener.getsockname()[1], 4, into=connections, at_once=3, seconds=0.0
        )
        assert connections == []
        with pytest.raises(bench.connections.LoadError, match="no handshake was answered"):
            bench.connections.open_connections(
                listener.getsockname()[1], 4, into=connections, at_once=3
            )
        assert len(connections) == 3


@pytest.mark.parametrize("damage", ["status", "accept", "surplus", "cut"])
def test_a_wrong_handshake_voids_the_measurement(bench: Any, damage: str) -> None:
    """101, the right Sec-WebSocket-Accept, and nothing behind it."""
    right = bench.frames.UPGRADED
    answer = {
        "status": right.replace(b"101", b"200"),
        "accept": right.replace(bench.frames.ACCEPT, b"A" * 27 + b"="),
        "surplus": right + b"\x89\x00",
        "cut": right[:-1],
    }[damage]

    def leave(connection: socket.socket) -> None:
        connection.shutdown(socket.SHUT_RDWR)

    with (
        serving(leave, answer) as server,
        bench.connections.holding() as connections,
        pytest.raises(bench.connections.LoadError),
    ):
        bench.handshakes.measure(server, connections, "1 at a time", 0.1)


def test_memory_is_told_for_each_of_the_connections(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the server has more afterwards, divided by those that came meanwhile."""
    sizes = iter([1_000_000, 1_400_000])
    monkeypatch.setattr(bench.population, "BEFORE", 2)
    monkeypatch.setattr(bench.servers.ServerProcess, "private_bytes", lambda _: next(sizes))
    values = bench.suites.measure_once("idle", "40", "raw", seconds=0.1, core=None)
    assert values == {"bytes/connection": 10_000.0}


def test_memory_is_that_of_the_process(bench: Any) -> None:
    """Read from outside, and of the size that a Python has."""
    with bench.servers.running("raw", "echo", core=None) as server:
        assert 2**20 < server.private_bytes() < 2**28


@pytest.mark.parametrize(("case", "has_memory"), [("1", False), ("120", True)])
def test_scale_measures_talk_among_the_idle(bench: Any, case: str, has_memory: bool) -> None:
    """The quantities of an echo, and memory where there are enough connections to divide by."""
    values = bench.suites.measure_once("scale", case, "trio_ws", seconds=0.1, core=None)
    assert ("bytes/connection" in values) is has_memory
    assert [name for name in values if name != "bytes/connection"] == MESSAGE


def test_scale_is_over_before_keepalive_pings_come(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes later is not measured; it is the machine that is to blame."""
    monkeypatch.setattr(bench.population, "MAX_AGE", -1.0)
    with pytest.raises(bench.connections.Unmeasurable, match="pings"):
        bench.suites.measure_once("scale", "1", "raw", seconds=0.1, core=None)


def test_a_ping_that_came_because_it_was_late_is_not_the_servers_fault(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a ping may be among the replies, wrong bytes say nothing; otherwise they do."""
    for age, error in ((-1.0, "Unmeasurable"), (18.0, "LoadError")):
        monkeypatch.setattr(bench.population, "MAX_AGE", age)
        with (
            serving(answering(b"\x89\x00"), bench.frames.UPGRADED) as server,
            bench.connections.holding() as connections,
            pytest.raises(getattr(bench.connections, error)),
        ):
            bench.population.scale(server, connections, "1", 0.1)


def test_more_connections_than_files_are_refused_with_a_word(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The case is left out, and says which limit it was."""
    monkeypatch.setattr(bench.population, "most_connections", lambda: 1000)
    assert bench.population.needs("900") is None
    assert "ulimit" in bench.population.needs("901")


def test_a_server_process_ends_with_its_block(bench: Any) -> None:
    """Nothing of a benchmark stays behind: the process is gone and its port refuses."""
    with bench.servers.running("raw", "echo", core=None) as server:
        before = server.cpu_seconds()
        socket.create_connection(("127.0.0.1", server.port)).close()
        assert server.cpu_seconds() >= before > 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port))
    with pytest.raises(OSError, match="Invalid argument"):
        server.cpu_seconds()


def test_a_server_ends_when_nobody_holds_its_input(bench: Any) -> None:
    """A benchmark that was killed leaves no server behind."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.servers", "raw", "echo"],
        cwd=bench.servers.ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdout.readline()
    process.stdin.close()
    assert process.wait(10) == 0
    process.stdout.close()
