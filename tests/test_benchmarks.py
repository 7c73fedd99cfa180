"""The benchmark counts honestly: each load against real servers, and against servers that cheat.

Lives here: the suites and their loads. Must never live here: statistics, the command line
(test_benchmarks_command), or how fast anything was.
"""

from __future__ import annotations

import contextlib
import importlib
import select
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.skipif(not hasattr(select, "epoll"), reason="the load is for Linux")

MODULES = (
    *("broadcast", "bulk", "connections", "echo", "frames", "handshakes", "load", "population"),
    *("servers", "suites", "window"),
)
MESSAGE = ["messages/s", "CPU us/message", "p50 us", "p99 us", "server CPU", "load CPU"]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The modules of `benchmarks/`, which is no part of the package. Nobody warms up."""
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parent.parent))
    modules = {name: importlib.import_module(f"benchmarks.{name}") for name in MODULES}
    for name in ("echo", "broadcast", "population"):
        monkeypatch.setattr(modules[name], "WARM_UP", 0.02)
    monkeypatch.setattr(modules["population"], "SETTLE", 0.0)
    monkeypatch.setattr(modules["handshakes"], "WARM_UP", 10)
    return SimpleNamespace(**modules)


@dataclass
class Fake:
    """A server in this process: what a suite asks of one, without a process to look at."""

    port: int
    unmasks: bool = True

    def cpu_seconds(self) -> float:
        return 0.0

    def private_bytes(self) -> int:
        return 0


@contextlib.contextmanager
def _serving(talk: Callable[[socket.socket], object], upgrade: bytes) -> Iterator[Fake]:
    """One connection at a time: reads a head, says `upgrade`, then talks."""

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, contextlib.suppress(OSError):
                    connection.recv(65536)
                    connection.sendall(upgrade)
                    talk(connection)
                    while connection.recv(65536):
                        pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield Fake(port=listener.getsockname()[1])
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def _answering(reply: bytes) -> Callable[[socket.socket], object]:
    def talk(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(reply)

    return talk


def _exchange(bench: Any, size: int = 32) -> Any:
    return bench.frames.Exchange.of(size=size, unmasks=True)


@pytest.mark.parametrize("case", ["1x1", "3x5", "16 KiB 3x4", "1 MiB 1x2"])
@pytest.mark.parametrize("name", ["raw", "wsproto", "websockets-asyncio", "trio_ws"])
def test_an_echo_is_counted_and_timed(bench: Any, name: str, case: str) -> None:
    """Both drivers get along with servers in their own processes, and every quantity is there."""
    values = bench.suites.measure_once("echo", case, name, seconds=0.1, core=None)
    assert list(values) == MESSAGE
    assert all(value > 0 for value in values.values())
    assert values["p50 us"] <= values["p99 us"]


def test_the_driver_is_chosen_by_what_a_socket_buffer_takes(bench: Any) -> None:
    """64 KiB under way are the small load's, one byte more is not; nobody has to say so."""
    chosen = {}
    for size in (16 * 1024 - 8, 16 * 1024 - 7):  # with a head of 8 bytes
        with contextlib.closing(bench.echo.driver([], _exchange(bench, size), 4)) as driver:
            chosen[size] = type(driver).__name__
    assert list(chosen.values()) == ["Load", "Bulk"]


@pytest.mark.parametrize("kind", ["Load", "Bulk"])
def test_each_message_has_one_latency(bench: Any, kind: str) -> None:
    """What came back and what was timed are the same number, by either driver."""
    make = getattr(bench.load if kind == "Load" else bench.bulk, kind)
    with (
        bench.connections.holding() as connections,
        bench.servers.running("raw", "echo", core=None) as server,
    ):
        bench.connections.open_connections(server.port, 3, into=connections)
        exchange = bench.frames.Exchange.of(size=100, unmasks=False)
        latencies: list[tuple[float, int]] = []
        with contextlib.closing(make(connections, exchange, 4)) as load:
            load.start()
            messages = load.drive(0.1, latencies)
            load.finish()
    assert messages > 0
    assert sum(count for _, count in latencies) == messages
    assert all(seconds > 0 for seconds, _ in latencies)


@pytest.mark.parametrize("damage", ["altered", "masked", "twice", "closed", "once", "half", "gone"])
@pytest.mark.parametrize("case", ["1x1", "1 MiB 1x1"])
def test_a_wrong_echo_voids_the_measurement(
    bench: Any, monkeypatch: pytest.MonkeyPatch, damage: str, case: str
) -> None:
    """A server cannot win by answering wrongly, twice, or no longer."""
    exchange = _exchange(bench, bench.load.Case.parse(case).size)
    reply = {
        "altered": exchange.reply[:-1] + b"~",
        "masked": exchange.request,
        "twice": exchange.reply * 2,
        "closed": bytes([0x88, 0]),
        "once": exchange.reply,
        "half": exchange.reply[: len(exchange.reply) // 2],
        "gone": b"",
    }[damage]
    for module in (bench.load, bench.bulk):
        monkeypatch.setattr(module, "PATIENCE", 0.2)

    def talk(connection: socket.socket) -> None:
        got = 0
        while got < len(exchange.request):
            got += len(connection.recv(1 << 20))
        connection.sendall(reply)
        if damage == "gone":
            connection.shutdown(socket.SHUT_RDWR)

    with (
        _serving(talk, bench.frames.UPGRADED) as server,
        bench.connections.holding() as connections,
        pytest.raises(bench.connections.LoadError),
    ):
        bench.echo.measure(server, connections, case, 0.1)


def test_a_server_that_reads_before_it_writes_gets_every_byte_once(bench: Any) -> None:
    """The kernel takes the messages in pieces, whenever it likes; whole they arrive, in order."""
    exchange = _exchange(bench, 300_000)
    total = len(exchange.request) * 4
    seen: list[bytes] = []

    def talk(connection: socket.socket) -> None:
        got = bytearray()
        while len(got) < total:
            got += connection.recv(50_000)
        seen.append(bytes(got))
        connection.sendall(exchange.reply * 4)

    with (
        _serving(talk, bench.frames.UPGRADED) as server,
        bench.connections.holding() as connections,
    ):
        bench.connections.open_connections(server.port, 1, into=connections)
        connections[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 * 1024)
        with contextlib.closing(bench.bulk.Bulk(connections, exchange, 4)) as load:
            load.start()
            load.finish()
    assert seen == [exchange.request * 4]


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
    reply = reply or _exchange(bench).reply * 2
    with (
        _serving(_answering(reply), bench.frames.UPGRADED) as server,
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
        _serving(leave, answer) as server,
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


@pytest.mark.parametrize("size", [0, 32, 125, 126, 65535, 65536])
def test_frames_are_what_wsproto_reads(bench: Any, size: int) -> None:
    """The prebuilt bytes are one whole message, and its echo, for an independent implementation."""
    from wsproto.connection import Connection, ConnectionType
    from wsproto.events import BytesMessage

    exchange = _exchange(bench, size)
    server = Connection(ConnectionType.SERVER)
    server.receive_data(exchange.request)
    events = list(server.events())
    payload = b"".join(event.data for event in events if isinstance(event, BytesMessage))
    assert len(payload) == size
    assert events[-1].message_finished  # type: ignore[attr-defined]
    assert server.send(BytesMessage(data=payload)) == exchange.reply
